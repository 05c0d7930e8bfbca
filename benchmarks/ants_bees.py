"""Ants or bees, 244 photographs to learn from: MobileNetV2 by warmstart against the loop of the PyTorch transfer-learning tutorial.

The loop (``peers/tutorial_loop.py``) is that of the tutorial in plain PyTorch: 25 epochs of SGD with its augmentation, batches of 4 and its
steps of the learning rate, once with the body frozen and once with all layers moving (at a tenth of its rate: see there). Both start from
the same imported weights; seconds are of whole commands. The loop also says after how many seconds it was first as good as each run of
warmstart, by the test images, which flatters it. All of it takes about 20 minutes a repeat.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import bench
import corpora
import weights

DATA = corpora.DATA / "ants_bees"
FROZEN, WHOLE = "loop, body frozen", "loop, all layers"
METHODS: dict[str, tuple[str, Sequence[str]]] = {
    "linear_probe": ("2m", ["--strategy", "linear_probe"]),
    "linear_probe, 4 views": ("2m", ["--strategy", "linear_probe", "--views", "4"]),
    "ladder": ("60s", []),
    "long ladder": ("4m", []),
    "full": ("4m", ["--strategy", "full"]),
}
"""Of warmstart: budget and flags."""


def main() -> int:
    options = bench.parser(__doc__, repeats=3)
    options.add_argument("--only", nargs="+", choices=[*METHODS, FROZEN, WHOLE], default=[*METHODS, FROZEN, WHOLE])
    options.add_argument("--epochs", type=int, default=25, help="epochs of the loop")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.epochs = 1, 1
    results = bench.Results("ants_bees", given)
    cells: dict[str, list[bench.Cell]] = {name: [] for name in given.only}
    with tempfile.TemporaryDirectory() as folder:
        body = weights.imported("mobilenet_v2", Path(folder))
        train, test = (some(DATA / part, Path(folder) / part, 6 if given.quick else None) for part in ("train", "val"))
        for seed in range(given.repeats):
            for name in given.only:
                work = measuring(name, body, train, test, seed, given)
                setting = f" epochs={given.epochs}" if "loop" in name else ""
                cells[name].append(results.cell(f"{name}{setting} seed={seed}", work))
    reference = bench.median(cells.get(FROZEN, []), bench.seconds)
    rows = [line(name, found, reference, cells) for name, found in cells.items()]
    header = ["method", "runs", "test accuracy %", "by seed", "seconds", "frozen loop / this", "frozen loop was as good after", "chosen"]
    return results.finish(bench.table(header, rows))


def some(source: Path, folder: Path, count: int | None) -> Path:
    """The class folders of a split, or copies of the first images of each."""
    if count is None:
        return source
    for kind in sorted(source.iterdir()):
        (folder / kind.name).mkdir(parents=True)
        for image in sorted(kind.iterdir())[:count]:
            shutil.copy(image, folder / kind.name)
    return folder


def measuring(name: str, body: Path, train: Path, test: Path, seed: int, given: argparse.Namespace) -> Callable[[], bench.Cell]:
    """What one cell of this method does."""
    if name in METHODS:
        budget, flags = METHODS[name]
        how = ["--test", test, "--backbone", body, *flags]
        return lambda: bench.adapt(train, *how, budget=budget, seed=seed, limit_seconds=given.limit)
    flags = ["--frozen"] if name == FROZEN else ["--lr", "0.0001"]
    command = bench.peer("tutorial_loop", body, train, test, "--epochs", given.epochs, "--seed", seed, *flags)
    return lambda: bench.run(command, limit_seconds=given.limit)


def line(name: str, found: list[bench.Cell], reference: float | None, cells: dict[str, list[bench.Cell]]) -> list[str]:
    """One line of the table."""
    done = bench.good(found)
    scores = [100 * bench.accuracy(cell) for cell in done]
    mean = sum(scores) / len(scores) if scores else None
    seconds = bench.median(done, bench.seconds)
    speed = reference / seconds if reference and seconds else None
    chosen = ", ".join(sorted({cell["answer"].get("strategy", "") for cell in done}))
    by_seed = ", ".join(f"{score:.1f}" for score in scores)
    as_good = "-" if name not in METHODS or mean is None else reached(cells.get(FROZEN, []), mean / 100)
    return [name, str(len(done)), bench.show(mean), by_seed, bench.show(seconds), bench.show(speed), as_good, chosen]


def reached(loops: list[bench.Cell], accuracy: float) -> str:
    """Seconds until the loop first had this accuracy on the test images, for each run of it."""
    found = []
    for cell in bench.good(loops):
        when = [epoch["seconds"] for epoch in cell["answer"]["epochs"] if epoch["accuracy"] >= accuracy - 1e-9]
        found.append(f"{when[0]:.0f} s" if when else "never")
    return ", ".join(found) or "-"


if __name__ == "__main__":
    sys.exit(main())
