"""SST-2: how soon warmstart reaches the test accuracy of the Hugging Face Trainer, and what it reaches in the Trainer's time.

The Trainer fine-tunes everything for 3 epochs: batch 32, lr 1e-4, warm-up 0.1, dynamic padding, float32. Times are of whole commands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
import corpora


def main() -> int:
    options = bench.parser(__doc__, repeats=3)
    options.add_argument("--budgets", nargs="*", default=["45s", "60s", "75s"], help="budgets of warmstart")
    options.add_argument("--no-equal", action="store_true", help="leave out the run with the Trainer's time as its budget")
    given = options.parse_args()
    results = bench.Results("sst2_trainer", given)
    with tempfile.TemporaryDirectory() as folder:
        rows = {split: corpora.read("sst2", split) for split in ("train", "test")}
        if given.quick:
            rows = {split: part[:64] for split, part in rows.items()}
            given.repeats, given.budgets, given.limit = 1, ["60s"], 300
        files = {split: corpora.write(Path(folder) / f"{split}.csv", part) for split, part in rows.items()}
        cells = measure(results, files, given)
    return results.finish(comparison(cells), *verdict(cells))


def measure(results: bench.Results, files: dict[str, Path], given: argparse.Namespace) -> dict[str, list[bench.Cell]]:
    """Cells by method, the repeats of each method; methods take turns, so that a slow hour of the machine meets them all."""
    cells: dict[str, list[bench.Cell]] = {}
    command = ["--train", files["train"], "--test", files["test"], "--epochs", 1 if given.quick else 3]

    def warmstart(method: str, budget: str, seed: int) -> None:
        def work() -> bench.Cell:
            return bench.adapt(files["train"], "--test", files["test"], budget=budget, seed=seed, limit_seconds=given.limit)

        cells.setdefault(method, []).append(results.cell(f"{method} seed={seed}", work))

    for seed in range(given.repeats):

        def trainer(seed: int = seed) -> bench.Cell:
            return bench.run(bench.peer("hf_trainer", *command, "--seed", seed), limit_seconds=given.limit)

        cells.setdefault("Trainer", []).append(results.cell(f"Trainer seed={seed}", trainer))
        for budget in given.budgets:
            warmstart(f"warmstart {budget}", budget, seed)
    trainer_seconds = bench.median(cells["Trainer"], bench.seconds)
    if trainer_seconds is not None and not given.no_equal:
        for seed in range(given.repeats):
            warmstart("warmstart, Trainer's time", f"{trainer_seconds:.0f}s", seed)
    return cells


def comparison(cells: dict[str, list[bench.Cell]]) -> str:
    """One line a method; ratios and differences are between medians."""
    reference = bench.median(cells["Trainer"], bench.accuracy), bench.median(cells["Trainer"], bench.seconds)
    return bench.table(
        ["method", "runs", "test accuracy %", "min to max", "points over Trainer", "seconds", "Trainer / this", "peak MiB", "strategies"],
        (_line(method, repeats, *reference) for method, repeats in cells.items()),
    )


def _line(method: str, repeats: list[bench.Cell], reference: float | None, reference_seconds: float | None) -> list[str]:
    score, seconds = bench.median(repeats, bench.accuracy), bench.median(repeats, bench.seconds)
    scores = sorted(bench.accuracy(c) for c in bench.good(repeats))
    return [
        method,
        f"{len(scores)}/{len(repeats)}",
        bench.show(score, ".2f", 100),
        f"{scores[0]:.2%} to {scores[-1]:.2%}" if scores else "-",
        bench.show(_minus(score, reference), "+.2f", 100),
        bench.show(seconds),
        "-" if seconds is None or reference_seconds is None else f"{reference_seconds / seconds:.1f}x",
        bench.show(bench.median(repeats, lambda c: c["peak_bytes"]), ".0f", 2.0**-20),
        " ".join(sorted({str(c["answer"].get("strategy", "full")) for c in bench.good(repeats)})),
    ]


def verdict(cells: dict[str, list[bench.Cell]]) -> list[str]:
    """The two claims, in words."""
    reference, reference_seconds = (bench.median(cells["Trainer"], f) for f in (bench.accuracy, bench.seconds))
    if reference is None or reference_seconds is None:
        return ["The Trainer did not finish: nothing to compare with."]
    reached: list[tuple[float, str]] = []
    for method, repeats in cells.items():
        score, seconds = bench.median(repeats, bench.accuracy), bench.median(repeats, bench.seconds)
        if method != "Trainer" and score is not None and seconds is not None and score >= reference:
            reached.append((seconds, method))
    if not reached:
        return ["No budget reached the Trainer's accuracy."]
    seconds, method = min(reached)
    said = f"Smallest time that reaches the Trainer's accuracy: {seconds:.1f} s ({method}), {reference_seconds / seconds:.1f} times faster."
    equal: Any = cells.get("warmstart, Trainer's time", [])
    more = _minus(bench.median(equal, bench.accuracy), reference)
    return [said] if more is None else [said, f"With the Trainer's time as its budget: {more * 100:+.2f} points."]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


if __name__ == "__main__":
    sys.exit(main())
