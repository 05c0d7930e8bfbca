"""Autoencoders against the DataLoader loop of the tutorials: seconds of an epoch, and the loss on held-out images, of the same network.

MNIST-size digits as PNG files in a dense and a convolutional network, CIFAR-10-size photographs in a convolutional one. The loop runs with
no worker and with two; the quicker one counts.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import bench
from corpora import DATA

EPOCHS, BATCH = 3, 128
CASES = {
    "digits, dense 256,64": ("mnist", "L", "dense", "256,64"),
    "digits, convolutional 32,64": ("mnist", "L", "convolutional", "32,64"),
    "photographs, convolutional 32,64": ("cifar", "RGB", "convolutional", "32,64"),
}


def digits(folder: Path, n: int) -> tuple[Path, Path]:
    """MNIST's test file as PNG files: the first 8,000 to learn from, the last 2,000 held out."""
    with gzip.open(DATA / "mnist_10k" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    for name, part in (("train", images[: min(n, 8_000)]), ("test", images[8_000:][: max(100, n // 4)])):
        (folder / name).mkdir()
        for i, pixels in enumerate(part):
            Image.fromarray(pixels).save(folder / name / f"{i:05}.png")
    return folder / "train", folder / "test"


def photographs(folder: Path, n: int) -> tuple[Path, Path]:
    """The CIFAR-10 sample as it is; of it ``n`` in a quick run."""
    found = DATA / "cifar10_small"
    if n >= 8_000:
        return found / "train", found / "test"
    for name in ("train", "test"):
        (folder / name).mkdir()
        for i, path in enumerate(sorted((found / name).rglob("*.jpg"))[:n]):
            (folder / name / f"{i}.jpg").symlink_to(path.absolute())
    return folder / "train", folder / "test"


def ours(train: Path, test: Path, kind: str, hidden: str, steps: int, seed: int, limit: float) -> bench.Cell:
    """The whole command; its answer has images a second of training."""
    sets = {"architecture": kind, "hidden": hidden, "batch": BATCH, "steps": steps, "cooldown": 0.0}
    with tempfile.TemporaryDirectory() as temporary:
        command = [str(bench.PROJECT_PYTHON), "-m", "warmstart", "pretrain", str(train), "--validation", str(test)]
        command += ["--objective", "autoencoder", *(word for name, v in sets.items() for word in ("--set", f"objective.{name}={v}"))]
        command += ["--out", f"{temporary}/body", "--json", "--quiet", "--seed", str(seed)]
        return bench.run(command, limit_seconds=limit)


def main() -> int:
    """Measure in turns, print one table."""
    options = bench.parser(__doc__, repeats=3).parse_args()
    results = bench.Results("autoencoder_loop", options)
    n, rows = 300 if options.quick else 8_000, []
    with tempfile.TemporaryDirectory() as name:
        places = {}
        for kind, make in (("mnist", digits), ("cifar", photographs)):
            (Path(name) / kind).mkdir()
            places[kind] = make(Path(name) / kind, n)
        for case, (data, mode, kind, hidden) in CASES.items():
            train, test = places[data]
            count = sum(p.is_file() for p in train.rglob("*"))
            for seed in range(options.repeats):
                for workers in (0, 2):
                    words = ["--mode", mode, "--kind", kind, "--hidden", hidden, "--epochs", EPOCHS, "--workers", workers, "--seed", seed]
                    command = bench.peer("autoencoder_loop", train, test, *words)
                    results.cell(f"{case}/loop {workers}/{seed}", lambda c=command: bench.run(c, limit_seconds=options.limit))
                steps = EPOCHS * (count // BATCH)
                results.cell(
                    f"{case}/warmstart/{seed}",
                    lambda t=train, v=test, k=kind, h=hidden, s=steps, seed=seed: ours(t, v, k, h, s, seed, options.limit),
                )
            rows.append(_row(results, case, count, options.repeats))
    header = ["", "loop, s an epoch", "workers", "warmstart, s an epoch", "loop / warmstart", "loss of the loop", "of warmstart"]
    return results.finish(bench.table(header, rows))


def _row(results: bench.Results, case: str, count: int, repeats: int) -> list[str]:
    def of(kind: str) -> list[bench.Cell]:
        return bench.good(results.cells[f"{case}/{kind}/{seed}"] for seed in range(repeats))

    loops = {workers: bench.median(of(f"loop {workers}"), lambda c: float(c["answer"]["epoch_seconds"])) for workers in (0, 2)}
    workers = min(loops, key=lambda w: loops[w] or float("inf"))
    images = count // BATCH * BATCH
    epoch = bench.median(of("warmstart"), lambda c: images / float(c["answer"]["per_second"]))
    theirs = bench.median(of(f"loop {workers}"), lambda c: float(c["answer"]["validation_loss"]))
    losses = bench.median(of("warmstart"), lambda c: float(c["answer"]["metrics"]["validation_loss"]["value"]))
    ratio = None if epoch is None or loops[workers] is None else loops[workers] / epoch
    return [
        case,
        bench.show(loops[workers], ".2f"),
        str(workers),
        bench.show(epoch, ".2f"),
        bench.show(ratio),
        bench.show(theirs, ".4f"),
        bench.show(losses, ".4f"),
    ]


if __name__ == "__main__":
    sys.exit(main())
