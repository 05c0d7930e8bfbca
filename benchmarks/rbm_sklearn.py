"""Contrastive divergence against scikit-learn's BernoulliRBM: seconds, and the pseudo-likelihood of 2,000 digits that neither has seen.

The same 8,000 digits, 256 hidden units, batches of 64, learning rate 0.05, 10 passes (1,250 steps); then with fewer steps. Both measure
the pseudo-likelihood by the same estimator.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import numpy as np

import bench
from corpora import DATA

UNITS, BATCH, PASSES, TRAIN = 256, 64, 10, 8_000


def files(folder: Path, n: int) -> tuple[Path, Path]:
    """The first 8,000 digits of the MNIST test file to learn from, the last 2,000 to measure on, as ``.npy``."""
    with gzip.open(DATA / "mnist_10k" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    np.save(folder / "train.npy", images[: min(n, TRAIN)])
    np.save(folder / "test.npy", images[TRAIN : TRAIN + max(100, n // 4)])
    return folder / "train.npy", folder / "test.npy"


def ours(train: Path, test: Path, steps: int, seed: int, limit: float, **options: object) -> bench.Cell:
    """Measure the whole command, with the seconds of training in its answer."""
    sets = {"hidden": UNITS, "batch": BATCH, "lr": 0.05, "steps": steps, **options}
    with tempfile.TemporaryDirectory() as temporary:
        command = [str(bench.PROJECT_PYTHON), "-m", "warmstart", "pretrain", str(train), "--validation", str(test), "--objective", "rbm"]
        command += [word for name, value in sets.items() for word in ("--set", f"objective.{name}={value}")]
        command += ["--out", f"{temporary}/body", "--json", "--quiet", "--seed", str(seed)]
        return bench.run(command, limit_seconds=limit)


def main() -> int:
    """Measure in turns, print one table."""
    options = bench.parser(__doc__, repeats=3).parse_args()
    results = bench.Results("rbm_sklearn", options)
    n = 500 if options.quick else TRAIN
    steps = PASSES * (n // BATCH)
    kinds = {"CD-1": (steps, {}), "CD-1, 0.4 of the steps": (int(0.4 * steps) // 10 * 10, {}), "persistent": (steps, {"persistent": True})}
    with tempfile.TemporaryDirectory() as name:
        train, test = files(Path(name), n)
        for seed in range(options.repeats):
            peer = bench.peer("sklearn_rbm", train, test, "--hidden", UNITS, "--passes", PASSES, "--seed", seed)
            results.cell(f"scikit-learn/{seed}", lambda peer=peer: bench.run(peer, limit_seconds=options.limit))
            for kind, (count, more) in kinds.items():
                results.cell(
                    f"warmstart {kind}/{seed}",
                    lambda count=count, more=more, seed=seed: ours(train, test, count, seed, options.limit, **more),
                )
    return results.finish(_table(results, ["scikit-learn", *(f"warmstart {kind}" for kind in kinds)], options.repeats))


def _table(results: bench.Results, names: list[str], repeats: int) -> str:
    def of(name: str) -> list[bench.Cell]:
        return bench.good(results.cells[f"{name}/{seed}"] for seed in range(repeats))

    def fit(cell: bench.Cell) -> float:
        answer = cell["answer"]
        return float(answer["fit_seconds"] if "fit_seconds" in answer else answer["count"] / answer["per_second"])

    def likelihood(cell: bench.Cell) -> float:
        answer = cell["answer"]
        return float(answer["metrics"]["pseudo_likelihood"]["value"] if "metrics" in answer else answer["pseudo_likelihood"])

    base = bench.median(of(names[0]), fit)
    rows = []
    for name in names:
        seconds, whole = bench.median(of(name), fit), bench.median(of(name), bench.seconds)
        ratio = None if base is None or seconds is None else base / seconds
        rows.append(
            [name, bench.show(seconds, ".2f"), bench.show(ratio), bench.show(whole), bench.show(bench.median(of(name), likelihood))]
        )
    return bench.table(["", "fit, s", "scikit-learn / this", "whole command, s", "pseudo-likelihood, held out"], rows)


if __name__ == "__main__":
    sys.exit(main())
