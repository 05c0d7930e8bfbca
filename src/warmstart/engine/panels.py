"""Precision against recall of single classes, one small drawing each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from warmstart.core.report import Report
from warmstart.engine.plots import clip

MOST = 12
SIDE, LEFT, BOTTOM = 100, 18, 14
"""Of the square, and the room for its ticks, in units of the drawing."""


@dataclass(frozen=True)
class Panel:
    """A class, the area below its curve, the drawing, and what guessing gives."""

    label: str
    area: float
    svg: Markup
    guess: float | None


def of(report: Report) -> list[Panel]:
    """At most twelve panels, those with the least area first. Dashed is what guessing gives: the share of the rows that carry the class."""
    n = report.metrics[report.main_metric].n if report.main_metric in report.metrics else 0
    guess = {c.label: c.rows / n for c in report.classes if n}
    found = [(label, float(np.nanmean(values)), values) for label, values in report.curves.items() if np.isfinite(values).any()]
    found.sort(key=lambda item: item[1])
    return [Panel(label, area, _drawn(label, values, guess.get(label)), guess.get(label)) for label, area, values in found[:MOST]]


def _drawn(label: str, values: Sequence[float], guess: float | None) -> Markup:
    width, height = LEFT + SIDE + 2, SIDE + BOTTOM + 4
    heights = [4 + SIDE * (1 - v) for v in np.nan_to_num(np.asarray(values, float)).tolist()]
    steps = SIDE / (len(heights) - 1)
    points = "".join(f"L{LEFT + steps * k:.4g} {y:.4g}" for k, y in enumerate(heights) if k in (0, len(heights) - 1) or _bends(heights, k))
    ticks = "".join(
        f'<path class="grid" d="M{LEFT} {4 + SIDE * (1 - v):.4g}h{SIDE}M{LEFT + SIDE * v:.4g} 4v{SIDE}"/>'
        f'<text x="{LEFT - 3}" y="{4 + SIDE * (1 - v) + 3:.4g}" text-anchor="end">{v:g}</text>'
        f'<text x="{LEFT + SIDE * v:.4g}" y="{height - 3}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    dashed = "" if guess is None else f'<path class="guess" d="M{LEFT} {4 + SIDE * (1 - guess):.4g}h{SIDE}"/>'
    name = html.escape(f"Precision against recall of {clip(label, 40)}", quote=True)
    return Markup(  # noqa: S704 - numbers, and a name that is escaped
        f'<svg class="panel" role="img" aria-label="{name}" viewBox="0 0 {width} {height}">{ticks}'
        f'<path class="below" d="M{LEFT} {4 + SIDE}{points}V{4 + SIDE}Z"/>{dashed}<path class="line" d="M{points[1:]}"/></svg>'
    )


def _bends(heights: Sequence[float], k: int) -> bool:
    """Whether a point is off the line through its neighbours."""
    return abs(heights[k - 1] - 2 * heights[k] + heights[k + 1]) > 1e-6
