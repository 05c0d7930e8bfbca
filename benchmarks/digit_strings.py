"""Speech recognition: strings of three to six spoken digits of held-out speakers, and sentences spoken by espeak-ng in held-out voices.

Every body climbs the same ladder in the same budget: none at all, an untrained one of the same shape, one that was pre-trained on the
training sound alone without its transcripts, and those that are named with ``--body NAME=FOLDER``. Word error rate with its interval, wall
time, and seconds of computing per second of sound when the saved model answers the test recordings.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import bench
import corpora

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = (("george", "jackson", "nicolas", "theo"), ("lucas", "yweweler"))
VOICES = (("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan"), ("en-gb-x-gbcwmd", "en-029"))
VARIANTS = (("", "+m1", "+m3", "+f1", "+f3"), ("+m2", "+f2"))
"""Speakers, voices and their variants: to learn from, and to be tested with."""
WORDS_OF_A_SENTENCE = (3, 8)


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--budget", default="4m", help="budget of adapt")
    options.add_argument("--pretraining", default="4m", help="budget of pretrain")
    options.add_argument("--rows", type=int, nargs=2, default=[1200, 200], help="recordings to learn from and to test with")
    options.add_argument("--data", nargs="+", choices=["digits", "sentences"], default=["digits", "sentences"])
    options.add_argument("--body", nargs="*", default=[], help="NAME=FOLDER of further bodies")
    given = options.parse_args()
    if given.quick:
        given.rows, given.budget, given.pretraining = [40, 10], "40s", "30s"
    results = bench.Results("digit_strings", given)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.data:
            make = digits if name == "digits" else sentences
            train, test = (make(Path(folder) / f"{name}-{part}", given.rows[part], part) for part in (0, 1))
            for body, place in bodies(Path(folder), train, name, given).items():
                work = functools.partial(adapt, train, test, place, given)
                cell = results.cell(f"{body} {name} {given.rows[0]} rows {given.budget}", work)
                lines.append(line(name, body, cell))
    header = ["data", "body", "rung", "word error rate %", "character error rate %", "seconds", "computing per second of sound"]
    return results.finish(bench.table(header, lines))


def bodies(folder: Path, train: Path, name: str, given: argparse.Namespace) -> dict[str, str]:
    """Name to folder of every body that is tried on these recordings."""
    found = {"none": "none"}
    for title, budget in (("untrained", None), ("wav2vec of these recordings", given.pretraining)):
        place = folder / f"{name}-{title.split()[0]}"
        steps = ["--set", "objective.steps=0"] if budget is None else ["--budget", budget]
        command = [bench.PROJECT_PYTHON, "-m", "warmstart", "pretrain", train.with_suffix(""), "--objective", "wav2vec"]
        done = bench.run(
            [*map(str, command), "--size", "tiny", *steps, "--out", str(place), "--json", "--quiet"], limit_seconds=given.limit
        )
        if "answer" in done:
            found[title] = str(place)
        else:
            print(f"{title}: {done['error']}", file=sys.stderr)
    return found | dict(b.split("=", 1) for b in given.body)


def adapt(train: Path, test: Path, body: str, given: argparse.Namespace) -> bench.Cell:
    """One climb; its answer gets the real-time factor of the test recordings."""
    how = ["--test", test, "--task", "speech_recognition", "--backbone", body]
    return bench.adapt(train, *how, budget=given.budget, seed=0, limit_seconds=given.limit)


def line(name: str, body: str, cell: bench.Cell) -> list[str]:
    """One line of the table."""
    if "answer" not in cell:
        return [name, body, cell["error"].splitlines()[-1][:60], "-", "-", bench.show(cell["seconds"]), "-"]
    metrics = cell["answer"]["metrics"]
    rates = [f"{100 * m['value']:.1f} [{100 * m['low']:.1f}, {100 * m['high']:.1f}]" for m in (metrics["wer"], metrics["cer"])]
    factor = metrics.get("real_time_factor", {}).get("value")
    return [name, body, cell["answer"]["strategy"], *rates, bench.show(cell["seconds"]), bench.show(factor, ".3f")]


def digits(folder: Path, n: int, part: int) -> Path:
    """Strings of digits of the speakers of a part, each of takes of one speaker with up to a fifth of a second between them."""
    place = corpora.DATA / "fsdd"
    with (place / "index.csv").open(encoding="utf-8") as file:
        takes: dict[tuple[str, str], list[str]] = {}
        for row in csv.DictReader(file):
            takes.setdefault((row["speaker"], row["label"]), []).append(row["file"])
    random = np.random.default_rng(part)
    folder.mkdir(parents=True)
    rows = []
    for i in range(n):
        speaker = str(random.choice(SPEAKERS[part]))
        said = random.integers(10, size=random.integers(3, 7)).tolist()
        pieces = []
        for digit in said:
            samples, rate = soundfile.read(place / str(random.choice(takes[speaker, str(digit)])), dtype="float32")
            pieces += [samples, 1e-3 * random.standard_normal(int(rate * random.uniform(0.03, 0.2)))]
        soundfile.write(folder / f"{i:04}.wav", np.concatenate(pieces), rate)
        rows.append((f"{folder.name}/{i:04}.wav", " ".join(WORDS[d] for d in said)))
    return _table(folder.with_suffix(".csv"), rows)


def sentences(folder: Path, n: int, part: int) -> Path:
    """Short sentences of image captions, each spoken once by espeak-ng, in voices of the part; no sentence is in both parts."""
    texts = gzip.decompress((corpora.DATA / "multi30k" / f"{'train' if part == 0 else 'val'}.en.gz").read_bytes()).decode().splitlines()
    few, many = WORDS_OF_A_SENTENCE
    texts = [t for t in dict.fromkeys(texts) if few <= len(t.split()) <= many and t.isascii()][:n]
    random = np.random.default_rng(part)
    folder.mkdir(parents=True)
    rows = []
    for i, text in enumerate(texts):
        voice = str(random.choice(VOICES[part])) + str(random.choice(VARIANTS[part]))
        speed, pitch = str(random.integers(140, 190)), str(random.integers(30, 70))
        command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", str(folder / f"{i:04}.wav"), text]
        subprocess.run(command, check=True)
        rows.append((f"{folder.name}/{i:04}.wav", text))
    return _table(folder.with_suffix(".csv"), rows)


def _table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "transcript"), *rows])
    return path


if __name__ == "__main__":
    sys.exit(main())
