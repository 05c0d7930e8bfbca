"""What a report shows of detections: boxes over pictures, average precision of each class, and precision against recall, as SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.report import Metric
from warmstart.engine import images
from warmstart.engine.average_precision import corners
from warmstart.engine.images import Picture

SIDE = 360
"""Longer side of a picture in a report, in pixels: about 15 kB."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7f3c8d")
"""Told apart by colour-blind readers (Okabe & Ito 2008)."""

MOST_BOXES, MOST_CLASSES, MOST_LINES = 60, 40, 8
ROW, WIDTH = 24, 420


def colour(label: int) -> str:
    """Of a class."""
    return COLOURS[label % len(COLOURS)]


def picture(image: Picture, target: NDArray[Any], found: NDArray[Any], labels: Sequence[str]) -> str:
    """The image with true boxes (G, 5) dashed in white and black, and boxes that were found (D, 6) in the colour of their class."""
    pixels = image.shown
    factor = SIDE / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    shapes = [f'<image href="{_jpeg(pixels, width, height)}" width="{width}" height="{height}"/>']
    for box in target[:MOST_BOXES]:
        name = labels[int(box[4])] if box[4] >= 0 else "unknown"
        shapes.append(_box(box[:4], width, height, 'stroke="#000" stroke-width="2.4"', name))
        shapes.append(_box(box[:4], width, height, 'stroke="#fff" stroke-width="1.2" stroke-dasharray="4 3"', name))
    for box in found[:MOST_BOXES]:
        name = f"{labels[int(box[5])]} {box[4]:.2f}"
        shapes.append(_box(corners(box[:4]), width, height, f'stroke="{colour(int(box[5]))}" stroke-width="1.8"', name))
    present = sorted({int(box[5]) for box in found[:MOST_BOXES]})
    key = "".join(f'<tspan fill="{colour(c)}" font-weight="bold">■</tspan> {html.escape(labels[c])}  ' for c in present)
    text = f'<text x="2" y="{height + 16}" font-size="12" fill="currentColor">{key}dashed: truth</text>'
    name = html.escape(f"{len(target)} true boxes, {len(found)} found")
    return (
        f'<svg class="boxes" role="img" aria-label="{name}" viewBox="0 0 {width} {height + 22}" width="{width}" '
        f'style="max-width:100%;height:auto">{"".join(shapes)}{text}</svg>'
    )


def bars(measured: Mapping[str, Metric]) -> str:
    """A metric of each class with its 95 % interval, best first; names are ``METRIC/CLASS``. Empty where there is none."""
    ranked = sorted(measured.items(), key=lambda item: -item[1].value)[:MOST_CLASSES]
    if not ranked:
        return ""
    left, right, height = 130, 60, ROW * len(ranked) + 8
    span = WIDTH - left - right
    rows = []
    for i, (name, metric) in enumerate(ranked):
        y = ROW * i + ROW / 2
        low, value, high = (left + span * min(1.0, max(0.0, v)) for v in (metric.low, metric.value, metric.high))
        shown = html.escape(name.partition("/")[2][:18])
        rows.append(
            f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end" font-size="13" fill="currentColor">{shown}</text>'
            f'<rect x="{left}" y="{y - 7:.0f}" width="{value - left:.1f}" height="14" fill="var(--blue)" opacity=".55"/>'
            f'<path d="M{low:.1f} {y:.0f}H{high:.1f}" stroke="currentColor" stroke-width="2"/>'
            f'<text x="{WIDTH - right + 8}" y="{y + 4:.0f}" font-size="13" fill="currentColor">{100 * metric.value:.1f} %</text>'
        )
    label = f"{ranked[0][0].partition('/')[0]} of each class with 95 % intervals"
    return f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">{"".join(rows)}</svg>'


def curves(lines: Mapping[str, Sequence[float]]) -> str:
    """Precision at 101 recalls from 0 to 1 for each class; empty where there is none."""
    known = list(lines.items())[:MOST_LINES]
    if not known:
        return ""
    left, top, side = 46, 8, 250
    ticks = [
        f'<path d="M{left} {top + side * (1 - v):.0f}H{left + side}M{left + side * v:.0f} {top}V{top + side}" stroke="var(--line)"/>'
        f'<text x="{left - 6}" y="{top + side * (1 - v) + 4:.0f}" text-anchor="end" font-size="12" fill="currentColor">{v:.1f}</text>'
        f'<text x="{left + side * v:.0f}" y="{top + side + 16}" text-anchor="middle" font-size="12" fill="currentColor">{v:.1f}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    drawn = []
    for i, (name, values) in enumerate(known):
        points = " ".join(
            f"{left + side * k / (len(values) - 1):.1f},{top + side * (1 - v):.1f}" for k, v in enumerate(np.nan_to_num(values).tolist())
        )
        y = top + 14 + 20 * i
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{colour(i)}" stroke-width="2"/>'
            f'<path d="M{left + side + 12} {y - 4}h14" stroke="{colour(i)}" stroke-width="3"/>'
            f'<text x="{left + side + 31}" y="{y}" font-size="12" fill="currentColor">{html.escape(name[:12])}</text>'
        )
    titles = (
        f'<text x="{left + side / 2}" y="{top + side + 34}" text-anchor="middle" font-size="13" fill="currentColor">recall</text>'
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle" font-size="13" fill="currentColor">'
        "precision</text>"
    )
    name = "Precision against recall at an overlap of one half"
    height = top + side + 42
    return f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">{"".join(ticks + drawn)}{titles}</svg>'


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
