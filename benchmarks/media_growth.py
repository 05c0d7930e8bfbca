"""Growth with images: time and peak memory of ``warmstart adapt`` and ``predict`` from a thousand pictures to ten thousand and more.

Pictures of 224 x 224 are drawn at random (coarse colours, a bright disc or a square that tells the two classes) and written as JPEG. The
body is MobileNetV1 0.25 of ``../shared/data/weights``, which is so quick that reading is most of the work. "Peak" is the kernel's
high-water mark, with the pages of memory-mapped files; "anonymous" leaves those out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import bench
import corpora

WEIGHTS = "mobilenet_v1_025_128_imagenet.fp16.safetensors"
DRAW = HERE = bench.HERE / "peers" / "draw_pictures.py"


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000])
    options.add_argument("--strategy", default="linear_probe")
    options.add_argument("--budget", default="10m")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.rows, given.budget, given.limit = 1, [60, 120], "60s", 300
    results = bench.Results("media_growth", given)
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        body = _body(place / "body")
        for count in given.rows:
            pictures = _drawn(place / "pictures", count)
            more = ("--backbone", body, "--strategy", given.strategy, "--set", "modality.size=224")
            learned = results.cell(
                f"adapt rows={count} strategy={given.strategy}",
                lambda pictures=pictures, more=more: bench.adapt(
                    pictures, *more, budget=given.budget, seed=0, limit_seconds=given.limit
                ),
            )
            lines.append(_line("adapt", count, learned))
    return results.finish(bench.table(["command", "pictures", "seconds", "pictures/s", "peak MiB", "anonymous MiB", "accuracy %"], lines))
