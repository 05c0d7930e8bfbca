"""What a report shows of detections: boxes over pictures, as SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from warmstart.engine import images, palette
from warmstart.engine.average_precision import corners
from warmstart.engine.images import Picture

SIDE = 360
"""Longer side of a picture in a report, in pixels: about 15 kB."""

MOST_BOXES = 60


def picture(image: Picture, target: NDArray[Any], found: NDArray[Any], labels: Sequence[str]) -> str:
    """The image with true boxes (G, 5) dashed and boxes that were found (D, 6) drawn through, in the colours of their classes."""
    pixels = image.shown
    factor = SIDE / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    shapes = [f'<image href="{_jpeg(pixels, width, height)}" width="{width}" height="{height}"/>']
    for box in target[:MOST_BOXES]:
        name = labels[int(box[4])] if box[4] >= 0 else "unknown"
        shapes.append(_box(box[:4], width, height, 'stroke="#fff" stroke-width="2.4"', name))
        shapes.append(_box(box[:4], width, height, f'stroke="{_colour(box[4])}" stroke-width="2.4" stroke-dasharray="5 4"', name))
    for box in found[:MOST_BOXES]:
        name = f"{labels[int(box[5])]} {box[4]:.2f}"
        shapes.append(_box(corners(box[:4]), width, height, f'stroke="{_colour(box[5])}" stroke-width="1.8"', name))
    present = sorted({int(box[4]) for box in target[:MOST_BOXES] if box[4] >= 0} | {int(box[5]) for box in found[:MOST_BOXES]})
    key = [f'<tspan fill="{_colour(c)}" font-weight="bold">■</tspan> {html.escape(labels[c])}' for c in present]
    told = " · ".join([*key, "dashed: truth"])
    text = f'<text x="2" y="{height + 16}" font-size="12" fill="currentColor">{told}</text>'
    name = html.escape(f"{len(target)} true boxes, {len(found)} found")
    return (
        f'<svg class="boxes" role="img" aria-label="{name}" viewBox="0 0 {width} {height + 22}" width="{width}" '
        f'style="max-width:100%;height:auto">{"".join(shapes)}{text}</svg>'
    )


def _colour(label: float) -> str:
    """Of a class; of one that the model does not know, black."""
    return palette.written(int(label)) if label >= 0 else "#000000"


def _box(box: NDArray[Any], width: int, height: int, style: str, name: str) -> str:
    x, y, right, bottom = (float(v) * side for v, side in zip(box, (width, height, width, height), strict=True))
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, right - x):.1f}" height="{max(0.0, bottom - y):.1f}" fill="none" {style}>'
        f"<title>{html.escape(name)}</title></rect>"
    )


def _jpeg(pixels: images.Pixels, width: int, height: int) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(images.resized(pixels, height, width)).save(buffer, "JPEG", quality=60)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
