"""Spoken digits: what pre-trained bodies for sound are worth against MFCC statistics with a linear model, and against none.

FSDD by its official rule (2,700 takes to learn from, 300 of the same six speakers to test on), and each speaker held out in turn. Bodies:
YAMNet of AudioSet, a speech embedding in ONNX, and ``soundnet``, which lies in the package; ``mfcc`` is warmstart's ladder without a body;
``scratch`` is a convolutional network on log-mel frames in plain PyTorch (``peers/scratch_sound.py``).
The official split is measured with an empty activation store; the speakers share one store a body, so only their first command computes
states, and seconds mean little. All of it takes about 40 minutes, of which the held-out speakers take 30.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench
import corpora
import few_labels
import weights

PLACE = corpora.DATA / "fsdd"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
METHODS = ("mfcc", "scratch", "soundnet", "yamnet", "speech embedding")


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    options.add_argument("--splits", nargs="+", default=["official", *SPEAKERS], choices=["official", *SPEAKERS])
    options.add_argument("--strategy", default="linear_probe", help="of the bodies: a rung, or auto for the ladder")
    options.add_argument("--budget", default="3m", help="budget of warmstart")
    options.add_argument("--takes", type=int, default=1, help="learn from every so many-th take")
    options.add_argument("--epochs", type=int, default=30, help="epochs from scratch")
    given = options.parse_args()
    if given.quick:
        given.splits, given.takes, given.epochs, given.budget = ["official", "theo"], 60, 1, "40s"
    results = bench.Results("sound_bodies", given)
    cells: dict[tuple[str, str], bench.Cell] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for split in given.splits:
            train, test = tables(split, place, given)
            for method in given.methods:
                key = name_of(method, split, given)
                cells[method, split] = results.cell(key, work_of(method, split, train, test, place, given))
    header = ["body", "official %", "interval", "seconds", "chosen", "held-out speakers %", "standard error", "by speaker"]
    return results.finish(bench.table(header, [line(method, cells, given.splits) for method in given.methods]))


def name_of(method: str, split: str, given: argparse.Namespace) -> str:
    """The key of a cell."""
    how = {"mfcc": "classic", "scratch": f"epochs={given.epochs}"}.get(method, f"{given.strategy} {given.budget}")
    return f"{method} {how} {split} takes=1/{given.takes}"


def tables(split: str, place: Path, given: argparse.Namespace) -> tuple[Path, Path]:
    """Rows to learn from and to test on, with the speaker of each."""
    with (PLACE / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    column, value = ("split", "test") if split == "official" else ("speaker", split)
    found = []
    for name, part in (("train", [row for row in rows if row[column] != value]), ("test", [row for row in rows if row[column] == value])):
        path = place / f"{split}-{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["audio", "label", "speaker"])
            step = given.takes if name == "train" else 20 if given.quick else 1
            writer.writerows([str(PLACE / row["file"]), row["label"], row["speaker"]] for row in part[::step])
        found.append(path)
    return found[0], found[1]


def work_of(method: str, split: str, train: Path, test: Path, place: Path, given: argparse.Namespace) -> Callable[[], bench.Cell]:
    """What one cell does. Where a speaker is held out, warmstart is told of the speakers, so that its own splits hold speakers out too."""
    if method == "scratch":
        command = bench.peer("scratch_sound", "--train", train, "--test", test, "--epochs", given.epochs)
        return lambda: bench.run(command, limit_seconds=given.limit)
    how: list[object] = ["--test", test, *([] if split == "official" else ["--group", "speaker"])]
    if method == "mfcc":
        how += ["--backbone", "none", "--strategy", "classic"]
    else:
        how += ["--strategy", given.strategy]
    if method == "yamnet":
        how += ["--backbone", weights.imported("yamnet", place)]
    if method == "speech embedding":
        how += [
            "--backbone",
            weights.SPEECH_EMBEDDING,
            *(word for key, value in weights.SPEECH_FRONT.items() for word in ("--set", f"backbone.{key}={value}")),
        ]
    cache = None if split == "official" else place / f"cache-{method}"
    return lambda: bench.adapt(train, *how, budget=given.budget, seed=0, limit_seconds=given.limit, cache=cache)


def line(method: str, cells: dict[tuple[str, str], bench.Cell], splits: list[str]) -> list[str]:
    """One line of the table."""
    official = [cells[method, "official"]] if (method, "official") in cells else []
    done = bench.good(official)
    first = ["-"] * 4
    if done:
        answer = done[0]["answer"]
        found = answer.get("metrics", {}).get("accuracy")
        interval = f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}]" if found else "-"
        first = [f"{100 * bench.accuracy(done[0]):.1f}", interval, f"{done[0]['seconds']:.0f}", answer.get("strategy", "-")]
    held = [bench.good([cells[method, split]]) for split in splits if split != "official"]
    scores = [100 * bench.accuracy(cell) for found in held for cell in found]
    error = few_labels.spread(scores)[2]
    mean = statistics.mean(scores) if scores else None
    return [method, *first, bench.show(mean), bench.show(error), ", ".join(f"{score:.1f}" for score in scores) or "-"]


if __name__ == "__main__":
    sys.exit(main())
