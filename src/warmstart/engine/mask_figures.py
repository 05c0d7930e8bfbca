"""What a report shows of class maps: the image with the truth over it beside what was found; and class maps as files."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.engine import images, palette
from warmstart.engine.answers import Files
from warmstart.engine.aside import opened
from warmstart.engine.images import Picture
from warmstart.engine.masks import Cells, resized
from warmstart.engine.overlap import Truth

SIDE = 208
"""Longer side of each picture in a report, in pixels: 8 to 15 kB."""

OPACITY = 0.6
MOST_NAMES = 10


def picture(image: Picture, target: Truth, found: Cells, labels: Sequence[str]) -> str:
    """Truth and answer over the image, side by side, with the colours of the classes that are in them; void is left black."""
    pixels, cells = images.rgb(image.shown), opened(target)
    factor = SIDE / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    base = images.resized(pixels, height, width).astype(np.float32)
    colours = np.zeros((256, 3), np.float32)
    colours[: len(labels)] = [palette.of(c) for c in range(len(labels))]
    drawn = []
    for title, classes in (("truth", cells), ("found", found.astype(np.uint8))):
        over = (1 - OPACITY) * base + OPACITY * colours[resized(classes, height, width)]
        shown = f'<img alt="{title}" src="{_jpeg(over)}" width="{width}" height="{height}" style="max-width:100%;height:auto">'
        drawn.append(f'<span style="display:inline-block;margin:0 .5em .3em 0">{shown}<br>{title}</span>')
    counts = np.bincount(cells.ravel(), minlength=256) + np.bincount(found.astype(np.uint8).ravel(), minlength=256)
    order = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c] and c < len(labels)][:MOST_NAMES]
    key = " ".join(_named(labels[c], colours[c]) for c in order)
    return f'<div class="masks">{"".join(drawn)}<div style="font-size:.85em">{key}</div></div>'


def _named(label: str, colour: NDArray[np.float32]) -> str:
    swatch = f'<span style="color:rgb{tuple(int(v) for v in colour)}">■</span>'
    return f'<span style="white-space:nowrap">{swatch} {html.escape(label[:30])}</span>'


def write(maps: NDArray[Any], labels: Sequence[str], values: Sequence[Any], files: Files) -> list[str]:
    """Class maps (N, h, w) as PNG files with a palette, each as large as its image, and their classes in ``classes.txt``; the paths.

    Where the classes are numbers a pixel has its class's own, else the place of its class in ``classes.txt``.
    """
    from PIL import Image

    folder = files.folder
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(label) if label.isdecimal() and int(label) < 256 else None for label in labels]
    ids = np.array([i if n is None or None in numbers else n for i, n in enumerate(numbers)], np.uint8)
    if None in numbers:
        (folder / "classes.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    colours = np.zeros((256, 3), np.uint8)
    colours[ids] = [palette.of(c) for c in range(len(labels))]
    paths = []
    for row, value in zip(maps, values, strict=True):
        name = files.name(value[0].name)
        width, height = value[0].size
        image = Image.fromarray(ids[resized(row.astype(np.uint8), height, width)])
        image.putpalette(colours.tobytes())
        image.save(folder / f"{name}.png", optimize=True)
        paths.append(str(folder / f"{name}.png"))
    return paths


def _jpeg(pixels: NDArray[np.float32]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=65)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
