"""A second run on stored activations against a first one with an empty store, and each rung's predicted against its measured cost."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import bench
import corpora


def main() -> int:
    options = bench.parser(__doc__, repeats=3)
    options.add_argument("--datasets", nargs="+", default=["sst2"], choices=list(corpora.TEXT_COLUMNS))
    options.add_argument("--strategies", nargs="+", default=["linear_probe", "tail", "auto"], help="auto climbs the whole ladder")
    options.add_argument("--budget", default="5m")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.strategies, given.budget, given.limit = 1, ["linear_probe"], "5m", 300
    results = bench.Results("second_run", given)
    totals: list[list[str]] = []
    rungs: list[list[str]] = []
    for name in given.datasets:
        train, test = (corpora.read(name, split)[: 200 if given.quick else None] for split in ("train", "test"))
        with tempfile.TemporaryDirectory() as folder:
            files = [corpora.write(Path(folder) / f"{split}.csv", rows) for split, rows in (("train", train), ("test", test))]
            for strategy in given.strategies:
                pairs = [_pair(results, name, strategy, files, seed, given) for seed in range(given.repeats)]
                totals.append(_total(name, strategy, pairs))
                rungs += _rungs(name, strategy, "first", [first for first, _ in pairs])
                rungs += _rungs(name, strategy, "second", [second for _, second in pairs])
    header = ["data", "strategy", "pairs", "first run, s", "second run, s", "first / second", "same accuracy"]
    more = ["data", "--strategy", "run", "rung", "predicted s", "measured s", "measured / predicted"]
    return results.finish(bench.table(header, totals), bench.table(more, rungs))


def _pair(
    results: bench.Results, name: str, strategy: str, files: list[Path], seed: int, given: argparse.Namespace
) -> tuple[bench.Cell, bench.Cell]:
    """The same command twice with one store; the second cell is nothing without the first, so both are measured together."""
    key = f"{name} {strategy} budget={given.budget} seed={seed}"
    measured: dict[str, bench.Cell] = {}
    with tempfile.TemporaryDirectory() as cache:

        def work(which: str) -> bench.Cell:
            for run in ("first", "second"):
                if run not in measured:
                    measured[run] = bench.adapt(
                        *(files[0], "--test", files[1], "--strategy", strategy),
                        budget=given.budget,
                        seed=seed,
                        limit_seconds=given.limit,
                        cache=Path(cache),
                    )
                if run == which:
                    break
            return measured[which]

        return results.cell(f"{key} first", lambda: work("first")), results.cell(f"{key} second", lambda: work("second"))


def _total(name: str, strategy: str, pairs: list[tuple[bench.Cell, bench.Cell]]) -> list[str]:
    done = [(a, b) for a, b in pairs if "answer" in a and "answer" in b]
    if not done:
        return [name, strategy, f"0/{len(pairs)}", *["-"] * 4]
    first, second = (statistics.median(bench.seconds(pair[i]) for pair in done) for i in (0, 1))
    same = sum(bench.accuracy(a) == bench.accuracy(b) for a, b in done)
    return [name, strategy, f"{len(done)}/{len(pairs)}", f"{first:.1f}", f"{second:.1f}", f"{first / second:.2f}x", f"{same}/{len(done)}"]


def _rungs(name: str, strategy: str, run: str, cells: list[bench.Cell]) -> list[list[str]]:
    """A line a rung that was climbed, medians over the repeats."""
    climbed: dict[str, list[tuple[float, float]]] = {}
    for cell in bench.good(cells):
        for rung in cell["answer"]["ladder"]:
            if rung["seconds"] and rung["seconds_predicted"]:
                climbed.setdefault(rung["strategy"], []).append((rung["seconds_predicted"], rung["seconds"]))
    found = []
    for rung_name, costs in climbed.items():
        predicted, measured = (statistics.median(cost[i] for cost in costs) for i in (0, 1))
        ratio = statistics.median(m / p for p, m in costs)
        found.append([name, strategy, run, rung_name, f"{predicted:.1f}", f"{measured:.1f}", f"{ratio:.2f}"])
    return found


if __name__ == "__main__":
    sys.exit(main())
