"""Growth with pictures: time and peak memory of ``warmstart adapt`` and ``predict`` from a thousand pictures to ten thousand.

The pictures are drawn at random, 224 x 224, and written as JPEG. The body is MobileNetV1 0.25, which is so quick that reading is much of
the work, shown 224 x 224 pixels. "Peak" is the kernel's high-water mark, with the pages of memory-mapped files; "anonymous" leaves those
out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import bench
import weights

MODEL_FLAGS = ("--strategy", "linear_probe", "--set", "modality.size=224")


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000])
    options.add_argument("--budget", default="10m")
    given = options.parse_args()
    if given.quick:
        given.rows, given.budget, given.limit = [60, 120], "60s", 300
    results = bench.Results("media_growth", given)
    warmstart = str(bench.PROJECT_PYTHON.parent / "warmstart")
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        flags = ("--backbone", weights.imported("mobilenet_v1", place), *MODEL_FLAGS)
        pictures, model = place / "pictures", place / "model"
        for count in sorted(given.rows):  # those of a smaller number are among the larger
            script = bench.HERE / "peers" / "draw_pictures.py"
            subprocess.run([bench.PROJECT_PYTHON, script, pictures, str(count)], check=True, stdout=subprocess.DEVNULL)
            if not model.exists():
                command = [warmstart, "adapt", pictures, *flags, "--budget", "2m", "--out", model, "--json", "--quiet"]
                subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)

            def adapted() -> bench.Cell:
                return bench.adapt(pictures, *flags, budget=given.budget, seed=0, limit_seconds=given.limit)

            def predicted() -> bench.Cell:
                command = [warmstart, "predict", model, pictures, "--out", place / "found.csv", "--force", "--json", "--quiet"]
                return bench.run([str(c) for c in command], limit_seconds=given.limit)

            for verb, work in (("adapt", adapted), ("predict", predicted)):
                lines.append(_line(verb, count, results.cell(f"{verb} pictures={count}", work)))
    return results.finish(bench.table(["command", "pictures", "seconds", "pictures/s", "peak MiB", "anonymous MiB"], lines))


def _line(verb: str, count: int, cell: bench.Cell) -> list[str]:
    seconds = bench.median([cell], bench.seconds)
    return [
        verb,
        f"{count:,}",
        bench.show(seconds),
        bench.show(None if seconds is None else count / seconds, ".0f"),
        bench.show(bench.median([cell], lambda c: c["peak_bytes"]), ".0f", 2.0**-20),
        bench.show(bench.median([cell], lambda c: c["anonymous_bytes"]), ".0f", 2.0**-20),
    ]


if __name__ == "__main__":
    sys.exit(main())
