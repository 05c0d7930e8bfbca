"""Draw pictures of 224 x 224 as JPEG, a disc or a square on coarse colours, in a folder for each; those that are there stay."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, KINDS = 224, ("square", "disc")


def draw(path: Path, seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int16) + random.integers(-12, 13, (SIDE, SIDE, 3))
    y, x = np.mgrid[:SIDE, :SIDE] - random.integers(60, 164, (2, 1, 1))
    inside = x**2 + y**2 < 40**2 if kind == "disc" else np.maximum(abs(x), abs(y)) < 36
    pixels[inside] = pixels[inside] // 3 + 160
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=88)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("count", type=int)
    given = options.parse_args()
    for kind in KINDS:
        (given.folder / kind).mkdir(parents=True, exist_ok=True)

    def one(i: int) -> None:
        path = given.folder / KINDS[i % 2] / f"{i:07}.jpg"
        if not path.exists():
            draw(path, i, KINDS[i % 2])

    with ThreadPoolExecutor() as threads:
        list(threads.map(one, range(given.count)))
    print(json.dumps({"pictures": given.count}))


if __name__ == "__main__":
    main()
