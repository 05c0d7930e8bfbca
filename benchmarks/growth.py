"""Growth: time and peak memory of ``warmstart adapt`` from a thousand to a hundred thousand rows of short texts.

Rows beyond the data set's own are made by small random edits, so that no two are equal. "Peak" is the kernel's high-water mark, with the
pages of memory-mapped files; "anonymous" leaves those out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bench
import corpora

LIMIT_BYTES = 2 * 2**30


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--dataset", default="sst2", choices=list(corpora.TEXT_COLUMNS))
    options.add_argument("--budget", default="5m")
    options.add_argument("--strategy", default="auto")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.rows, given.budget, given.limit = 1, [100, 300], "60s", 300
    results = bench.Results("growth", given)
    train, test = (corpora.read(given.dataset, split) for split in ("train", "test"))
    cells: dict[int, list[bench.Cell]] = {}
    with tempfile.TemporaryDirectory() as folder:
        more = ("--test", corpora.write(Path(folder) / "test.csv", test), "--strategy", given.strategy)
        for count in given.rows:
            train_file = corpora.write(Path(folder) / "train.csv", corpora.grow(train, count, 0))
            for seed in range(given.repeats):

                def work(train_file: Path = train_file, seed: int = seed) -> bench.Cell:
                    return bench.adapt(train_file, *more, budget=given.budget, seed=seed, limit_seconds=given.limit)

                key = f"{given.dataset} rows={count} budget={given.budget} strategy={given.strategy} seed={seed}"
                cells.setdefault(count, []).append(results.cell(key, work))
    header = ["rows", "budget", "seconds", "strategy", "test accuracy %", "peak MiB", "anonymous MiB", "store MiB", "under 2 GiB"]
    return results.finish(bench.table(header, [_line(count, given.budget, found) for count, found in cells.items()]))


def _line(count: int, budget: str, cells: list[bench.Cell]) -> list[str]:
    done = bench.good(cells)
    peak = bench.median(done, lambda c: c["peak_bytes"])
    return [
        f"{count:,}",
        budget,
        bench.show(bench.median(done, bench.seconds)),
        " ".join(sorted({c["answer"]["strategy"] for c in done})) or "-",
        bench.show(bench.median(done, bench.accuracy), ".2f", 100),
        bench.show(peak, ".0f", 2.0**-20),
        bench.show(bench.median(done, lambda c: c["anonymous_bytes"]), ".0f", 2.0**-20),
        bench.show(bench.median(done, lambda c: c["store_bytes"]), ".0f", 2.0**-20),
        "-" if peak is None else "yes" if peak < LIMIT_BYTES else "NO",
    ]


if __name__ == "__main__":
    sys.exit(main())
