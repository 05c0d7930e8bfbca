"""Few labels: warmstart against SetFit, the Trainer, and logistic regression on frozen embeddings or on TF-IDF, over random draws.

Every method gets the same rows of a draw and is measured on the same test rows, all or ``--test-rows`` of them; seconds are of the whole
command. A method that does not finish within ``--limit`` is not tried on the other draws of that size.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench
import corpora

DATASETS = ["sst2", "trec", "ag_news", "banking77"]
Files = dict[str, Path]
Methods = dict[str, Callable[[Files, int], bench.Cell]]


def methods(given: argparse.Namespace) -> Methods:
    """What runs on one draw, by name.

    SetFit's default is one epoch over all pairs, whose number grows with the square of the rows; ``setfit20`` takes 20 pairs of each
    kind per row instead, the setting of its paper (Tunstall et al. 2022). The Trainer takes 20 epochs of full fine-tuning
    (the few-sample advice of Zhang et al. 2021), batch 16, lr 1e-4, warm-up 0.1. The strength of the two logistic regressions, 1 for
    embeddings and 10 for TF-IDF, is the one of 1, 10, 100 that did best for them on these sets.
    """

    def peer(script: str, *arguments: object) -> Callable[[Files, int], bench.Cell]:
        def work(files: Files, seed: int) -> bench.Cell:
            rows = ["--train", files["train"], "--test", files["test"]]
            seeded = [] if script == "linear" else ["--seed", seed]  # a convex problem: nothing to seed
            return bench.run(bench.peer(script, *arguments, *rows, *seeded), limit_seconds=given.limit)

        return work

    def warmstart(files: Files, seed: int) -> bench.Cell:
        return bench.adapt(files["train"], "--test", files["test"], budget=given.budget, seed=seed, limit_seconds=given.limit)

    return {
        "warmstart": warmstart,
        "setfit": peer("setfit_fit"),
        "setfit20": peer("setfit_fit", "--iterations", 20),
        "frozen": peer("linear", "embedding"),
        "tfidf": peer("linear", "tfidf", "--strength", 10),
        "trainer": peer("hf_trainer", "--epochs", given.epochs, "--batch", 16),
    }


def main() -> int:
    options = bench.parser(__doc__, repeats=10)
    options.set_defaults(limit=600.0)
    options.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    options.add_argument("--per-class", type=int, nargs="+", default=[8, 16, 64])
    options.add_argument("--methods", nargs="+", default=["warmstart", "setfit", "frozen", "tfidf", "trainer"], help="also: setfit20")
    options.add_argument("--budget", default="60s", help="budget of warmstart")
    options.add_argument("--epochs", type=int, default=20, help="epochs of the Trainer")
    options.add_argument("--test-rows", type=int, default=0, help="so many test rows, drawn once, where not all (0) shall be answered")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.per_class, given.budget, given.limit, given.epochs = 1, [2], "60s", 300, 2
    results = bench.Results("few_labels", given)
    chosen = {name: methods(given)[name] for name in given.methods}
    summaries, differences = [], []
    for name in given.datasets:
        for per_class in given.per_class:
            cells = measure(results, name, per_class, chosen, given)
            summaries += [summary(name, per_class, method, draws) for method, draws in cells.items()]
            differences += paired(name, per_class, cells)
    header = ["data", "per class", "method", "draws", "accuracy %", "sd", "standard error", "seconds", "note"]
    tables = [bench.table(header, summaries)]
    if differences:
        header = [
            "data",
            "per class",
            "peer",
            "draws",
            "warmstart minus peer, points",
            "standard error",
            "peer above by over 1 SE",
            "speed",
        ]
        tables.append("Paired over the same draws:\n\n" + bench.table(header, differences))
    return results.finish(*tables)


def measure(
    results: bench.Results, name: str, per_class: int, chosen: Methods, given: argparse.Namespace
) -> dict[str, dict[int, bench.Cell]]:
    """Cells by method and draw; methods take turns on each draw."""
    train, test = (corpora.read(name, split) for split in ("train", "test"))
    if 0 < given.test_rows < len(test):
        test = corpora.sample(test, given.test_rows)
    cells: dict[str, dict[int, bench.Cell]] = {method: {} for method in chosen}
    with tempfile.TemporaryDirectory() as folder:
        files = {"test": corpora.write(Path(folder) / "test.csv", test[:50] if given.quick else test)}
        for seed in range(given.repeats):
            files["train"] = corpora.write(Path(folder) / f"train-{seed}.csv", corpora.draw(train, per_class, seed))
            for method, work in chosen.items():
                if any(cell["timed_out"] for cell in cells[method].values()):
                    continue
                setting = {"warmstart": f" {given.budget}", "trainer": f" epochs={given.epochs}"}.get(method, "")
                tested = f" test_rows={given.test_rows}" if given.test_rows else ""
                key = f"{method}{setting} {name} per_class={per_class} draw={seed}{tested}"
                cells[method][seed] = results.cell(key, lambda work=work, seed=seed: work(files, seed))  # type: ignore[misc]
    return cells


def summary(name: str, per_class: int, method: str, draws: dict[int, bench.Cell]) -> list[str]:
    """One line: mean, standard deviation and standard error of the test accuracy over the draws that ended, median seconds."""
    done = bench.good(draws.values())
    mean, sd, error = spread([100 * bench.accuracy(c) for c in done])
    note = "; ".join(sorted({c["error"].splitlines()[0] for c in draws.values() if "error" in c}))
    count = f"{len(done)}/{len(draws)}"
    seconds = bench.show(bench.median(done, bench.seconds))
    return [name, str(per_class), method, count, bench.show(mean), bench.show(sd), bench.show(error, ".2f"), seconds, note[:80]]


def paired(name: str, per_class: int, cells: dict[str, dict[int, bench.Cell]]) -> list[list[str]]:
    """warmstart against each peer on the draws that both finished."""
    ours = cells.get("warmstart", {})
    found = []
    for method, theirs in cells.items():
        both = [seed for seed in ours if seed in theirs and "answer" in ours[seed] and "answer" in theirs[seed]]
        if method == "warmstart" or not both:
            continue
        mean, _, error = spread([100 * (bench.accuracy(ours[s]) - bench.accuracy(theirs[s])) for s in both])
        above = "-" if mean is None or error is None else "YES" if -mean > error else "no"
        speed = statistics.median(theirs[s]["seconds"] / ours[s]["seconds"] for s in both)
        found.append(
            [name, str(per_class), method, str(len(both)), bench.show(mean, "+.2f"), bench.show(error, ".2f"), above, f"{speed:.1f}x"]
        )
    return found


def spread(values: list[float]) -> tuple[float | None, float | None, float | None]:
    """Mean, standard deviation, standard error of the mean; None where there are too few values."""
    if len(values) < 2:
        return (values[0] if values else None), None, None
    sd = statistics.stdev(values)
    return statistics.mean(values), sd, sd / len(values) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
