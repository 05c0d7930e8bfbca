"""Small pictures of a sky above a ground with a box on it, and their masks, in two folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("sky", "ground", "box")
VOID = 255


def pictures(n: int, *, seed: int = 0, size: tuple[int, int] = (48, 64)) -> list[tuple[np.ndarray, np.ndarray]]:
    """``n`` images (H, W, 3), and the class of each pixel (H, W), the topmost row void."""
    random = np.random.default_rng(seed)
    height, width = size
    found = []
    for _ in range(n):
        cells = np.zeros(size, np.uint8)
        horizon = int(random.integers(height // 4, 3 * height // 4))
        cells[horizon:] = 1
        h, w = (int(v) for v in random.integers(10, 18, 2))
        y, x = int(random.integers(0, height - h)), int(random.integers(0, width - w))
        cells[y : y + h, x : x + w] = 2
        colours = np.array([[120, 160, 230], [90, 130, 60], [210, 60, 50]])
        pixels = np.clip(colours[cells] + random.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
        cells[0] = VOID
        found.append((pixels, cells))
    return found


def write(folder: Path, n: int, *, seed: int = 0, masks: str = "masks", images: str = "images", names: bool = True) -> Path:
    """PNG files in ``images`` and ``masks``, and ``classes.txt`` beside them."""
    for place in (images, masks):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for i, (pixels, cells) in enumerate(pictures(n, seed=seed)):
        Image.fromarray(pixels).save(folder / images / f"{seed}-{i:03}.png")
        Image.fromarray(cells).save(folder / masks / f"{seed}-{i:03}.png")
    if names:
        (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return folder
