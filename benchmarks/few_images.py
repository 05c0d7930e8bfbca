"""Few labelled images: warmstart against a frozen body with logistic regression and full fine-tuning by the Trainer, over random draws.

CIFAR-10 (JPEG) and digits of MNIST, with the ResNet-20 of CIFAR-10 as the body of every method (ResNet-56: ``--body resnet56``). Every
method gets the same rows of a draw and is measured on the same 2,000 images. ``classic`` is warmstart's ladder without a body: what images
are worth with hand-made features alone. A draw of one size takes about 4 minutes for all methods; ten of each take about 2.5 hours.

With CIFAR-10 the body knows the classes: as it is, it gives 81.3 % (ResNet-56: 83.2 %), which adapting must not lose.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import bench
import corpora
import few_labels
import weights

DATASETS = ("cifar10_small", "mnist_10k")
Rows = list[corpora.Row]
PEERS = {
    "frozen": ["frozen"],
    "frozen, scaled": ["frozen", "--scaled"],
    "trainer": ["trainer"],
}
OURS = {"warmstart": [], "probe": ["--strategy", "linear_probe"], "classic": ["--strategy", "classic", "--backbone", "none"]}
TRAINED, TESTED = 8000, 2000
"""Of the 10,000 digits: the first to draw from, the last to test on."""


def main() -> int:
    options = bench.parser(__doc__, repeats=10)
    options.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    options.add_argument("--per-class", type=int, nargs="+", default=[10, 50])
    options.add_argument("--methods", nargs="+", default=["warmstart", "classic", *PEERS], choices=[*OURS, *PEERS])
    options.add_argument("--draws", type=int, dest="repeats", default=10, help="the same as --repeats")
    options.add_argument("--body", default="resnet20", choices=["resnet20", "resnet56"])
    options.add_argument("--budget", default="60s", help="budget of warmstart")
    options.add_argument("--epochs", type=int, default=30, help="epochs of the Trainer")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.per_class, given.epochs, given.budget = 1, [2], 1, "40s"
    results = bench.Results("few_images", given)
    summaries, differences = [], []
    with tempfile.TemporaryDirectory() as folder:
        body = weights.imported(given.body, Path(folder))
        for name in given.datasets:
            train, test = rows_of(name, Path(folder) / name)
            for per_class in given.per_class:
                cells = measure(results, name, per_class, (train, test[::40] if given.quick else test), body, given)
                summaries += [few_labels.summary(name, per_class, method, draws) for method, draws in cells.items()]
                differences += few_labels.paired(name, per_class, cells)
    header = ["data", "per class", "method", "draws", "accuracy %", "sd", "standard error", "seconds", "note"]
    tables = [bench.table(header, summaries)]
    if differences:
        header = ["data", "per class", "peer", "draws", "warmstart minus peer", "standard error", "peer above by over 1 SE", "speed"]
        tables.append("Paired over the same draws:\n\n" + bench.table(header, differences))
    return results.finish(*tables)


def measure(
    results: bench.Results, name: str, per_class: int, rows: tuple[Rows, Rows], body: Path, given: argparse.Namespace
) -> dict[str, dict[int, bench.Cell]]:
    """Cells by method and draw; methods take turns on each draw."""
    cells: dict[str, dict[int, bench.Cell]] = {method: {} for method in given.methods}
    with tempfile.TemporaryDirectory() as folder:
        test = corpora.write(Path(folder) / "test.csv", rows[1], column="image")
        for seed in range(given.repeats):
            train = corpora.write(Path(folder) / f"train-{seed}.csv", corpora.draw(rows[0], per_class, seed), column="image")
            for method in given.methods:
                setting = {"trainer": f" epochs={given.epochs}"}.get(method, f" {given.budget}" if method in OURS else "")
                key = f"{method}{setting} {name} {given.body} per_class={per_class} draw={seed}"
                cells[method][seed] = results.cell(key, work_of(method, train, test, body, seed, given))
    return cells


def work_of(method: str, train: Path, test: Path, body: Path, seed: int, given: argparse.Namespace) -> Callable[[], bench.Cell]:
    """What one cell of this method does."""
    if method in OURS:
        flags = OURS[method] if "--backbone" in OURS[method] else ["--backbone", body, *OURS[method]]
        return lambda: bench.adapt(train, "--test", test, *flags, budget=given.budget, seed=seed, limit_seconds=given.limit)
    weight = weights.WEIGHTS / weights.IMPORTS[given.body][0]
    rows = ["--weights", weight, "--train", train, "--test", test, "--epochs", given.epochs, "--seed", seed]
    return lambda: bench.run(bench.peer("small_images", *PEERS[method], *rows), limit_seconds=given.limit)


def rows_of(name: str, folder: Path) -> tuple[Rows, Rows]:
    """Files and labels to draw from, and to test on."""
    place = corpora.DATA / name
    if name == "mnist_10k":
        rows = digits(place, folder)
        return rows[:TRAINED], rows[-TESTED:]
    train, test = ([(str(file), file.parent.name) for file in sorted((place / part).rglob("*.jpg"))] for part in ("train", "test"))
    return train, test


def digits(place: Path, folder: Path) -> Rows:
    """Every digit as a PNG file."""
    folder.mkdir(parents=True)
    pixels, labels = (gzip.decompress((place / f"t10k-{part}-ubyte.gz").read_bytes()) for part in ("images-idx3", "labels-idx1"))
    _, count, height, width = struct.unpack(">4I", pixels[:16])
    rows = []
    for i in range(count):
        start = 16 + i * height * width
        path = folder / f"{i:05}.png"
        path.write_bytes(png(pixels[start : start + height * width], height, width))
        rows.append((str(path), str(labels[8 + i])))
    return rows


def png(grey: bytes, height: int, width: int) -> bytes:
    """A PNG of 8-bit grey pixels, row by row."""
    lines = b"".join(b"\0" + grey[y * width : (y + 1) * width] for y in range(height))
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    sys.exit(main())
