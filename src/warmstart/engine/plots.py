"""The drawings of the report page: each function returns one small SVG whose colours follow the page's light or dark theme.

Every drawing is ``WIDTH`` units wide and is scaled to its column, so its text is about as large as the text around it, on a phone
too. Colours are written as place-holders and turned into CSS variables; fonts are the page's own. Blue and orange are told apart by
colour-blind readers (Okabe and Ito, 2008).
"""

from __future__ import annotations

import html
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from warmstart.core.report import Comparison, CurvePoint, ReliabilityBin, Rung

WIDTH = 420

INK, _MUTED, _GRID, _BLUE, _RED = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)", _BLUE: "var(--blue)", _RED: "var(--red)"}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 13,
    "figure.constrained_layout.w_pad": 3 / 72,
    "figure.constrained_layout.h_pad": 3 / 72,
    "text.color": INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _GRID,
    "xtick.labelcolor": INK,
    "ytick.color": _GRID,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}
_SECONDS_TICKS = {
    0.001: "1 ms",
    0.01: "10 ms",
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36000: "10 h",
    360000: "100 h",
}


DOT = 12 / 72
"""Inches around the axes of a diagram whose dots may reach beyond them."""


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """Our style for the time of one drawing; ``salt`` keeps the ids of several drawings on one page apart."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # only measured with this font; the browser draws the text
        yield


def blank(height: float, width: float = WIDTH) -> Figure:
    """An empty drawing."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def svg(figure: Figure, description: str) -> str:
    """The figure as an ``<svg>`` element for inlining: no prologue, no fixed size, no style that would leak into the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    view = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", _theme, body)
    body = re.sub(r">\s+<", "><", body.strip())
    box = view.group(1) if view else f"0 0 {WIDTH} {WIDTH}"
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} class="plot" viewBox="{box}" role="img" aria-label="{html.escape(description)}">{body}'


def _theme(match: re.Match[str]) -> str:
    """One tag with our colours as CSS variables and without what the page decides (font) or nobody refers to (group ids)."""
    tag = " ".join(match.group().split())
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"^<g id=\"[^\"]*\"", "<g", tag)
    tag = re.sub(r" transform=\"rotate\(-0 [^)]*\)\"", "", tag)
    return re.sub("|".join(_VARIABLES), lambda colour: _VARIABLES[colour.group()], tag)


def clip(text: object, limit: int) -> str:
    """Text in one line of at most ``limit`` characters, without characters that a page cannot show."""
    whole = str(text)
    start = whole[: 4 * limit]  # enough to fill the limit, and long texts cost nothing
    line = " ".join("".join(c if unicodedata.category(c) not in ("Cc", "Cs") else " " for c in start).split())
    return line if len(line) <= limit and len(start) == len(whole) else line[: limit - 1].rstrip() + "…"


def _finite(*values: float | None) -> bool:
    return all(v is not None and math.isfinite(v) for v in values)


def _percent_axis(axis: Any, is_share: bool, ticks: int = 5) -> None:
    axis.set_major_locator(MaxNLocator(ticks))
    if is_share:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))


def ladder(rungs: Sequence[Rung], metric: str, *, is_share: bool) -> str:
    """Held-out score with its interval, and seconds (measured filled, predicted hollow), one line per climbed rung."""
    climbed = [r for r in rungs if _finite(r.score)]
    if not climbed:
        return ""
    with styled("ladder"):
        figure = blank(64 + 30 * len(climbed))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1])
        for y, rung in enumerate(climbed):
            colour = _RED if rung.chosen else _BLUE
            left.plot([rung.low, rung.high], [y, y], color=colour, linewidth=2.5, alpha=0.55)
            left.plot([rung.score], [y], "o", color=colour, markersize=7)
            _seconds(right, rung, y, colour)
        left.set_yticks(range(len(climbed)), [clip(r.strategy, 20) for r in climbed])
        for label, rung in zip(left.get_yticklabels(), climbed, strict=True):
            label.set_fontweight("bold" if rung.chosen else "normal")
        left.set_ylim(len(climbed) - 0.4, -0.6)
        left.set_xlabel(metric)
        _percent_axis(left.xaxis, is_share, 4)
        _zoom(left, climbed, is_share)
        right.set_xlabel("time")
        right.tick_params(labelleft=False)
        _seconds_axis(right, climbed)
        return svg(figure, f"Held-out {metric} with 95 % interval, and seconds, of every rung that was climbed")


def _seconds(axes: Any, rung: Rung, y: int, colour: str) -> None:
    predicted, measured = (max(t, 1e-3) if t is not None and math.isfinite(t) else math.nan for t in (rung.seconds_predicted, rung.seconds))
    axes.plot([predicted, measured], [y, y], color=colour, linewidth=1, alpha=0.6)
    axes.plot([predicted], [y], "o", color=colour, markersize=7, markerfacecolor="none")
    axes.plot([measured], [y], "o", color=colour, markersize=7)


def _zoom(axes: Any, climbed: Sequence[Rung], is_share: bool) -> None:
    """Limits that show the differences among the good rungs; a floor far below them becomes an arrow at the edge."""
    lows = sorted(float(r.low if _finite(r.low) else r.score) for r in climbed if r.score is not None)  # type: ignore[arg-type]
    top = max(float(r.high if _finite(r.high) else r.score) for r in climbed if r.score is not None)  # type: ignore[arg-type]
    bottom = lows[0]
    if len(lows) > 2 and lows[1] - lows[0] > 1.5 * (top - lows[1]):
        bottom = lows[1]
    margin = 0.08 * (top - bottom) or 0.01
    axes.set_xlim(bottom - 2 * margin, top + margin)
    for y, rung in enumerate(climbed):
        if rung.score is not None and rung.score < bottom - 2 * margin:
            across = axes.get_yaxis_transform()
            axes.plot([0.04], [y], "<", color=_BLUE, transform=across, markersize=7)
            axes.text(
                0.08, y, f"{100 * rung.score:.1f} %" if is_share else f"{rung.score:.3g}", va="center", color=_MUTED, transform=across
            )


def _seconds_axis(axes: Any, climbed: Sequence[Rung]) -> None:
    times = [max(t, 1e-3) for r in climbed for t in (r.seconds, r.seconds_predicted) if t is not None and math.isfinite(t)]
    axes.set_xscale("log")
    low, high = min(times, default=1.0) / 2.5, max(times, default=1.0) * 2.5
    ticks = [t for t in _SECONDS_TICKS if low <= t <= high]
    while len(ticks) > 3:
        ticks = ticks[::-2][::-1]
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _SECONDS_TICKS.get(v, "")))


def forest(comparisons: Sequence[Comparison]) -> str:
    """Paired differences in points with their intervals, one line per comparison."""
    known = [c for c in comparisons if _finite(c.difference)]
    if not known:
        return ""
    with styled("forest"):
        figure = blank(64 + 34 * len(known))
        axes = figure.subplots()
        axes.axvline(0, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for y, c in enumerate(known):
            clear = c.low > 0 or c.high < 0
            axes.plot([100 * c.low, 100 * c.high], [y, y], color=_BLUE, linewidth=2.5, alpha=0.55)
            axes.plot([100 * c.difference], [y], "o", color=_BLUE, markersize=7, markerfacecolor=_BLUE if clear else "none")
        axes.set_yticks(range(len(known)), [f"{clip(c.a, 14)} v. {clip(c.b, 14)}" for c in known])
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("difference in points")
        return svg(figure, "Paired differences between rungs with 95 % intervals")


def learning_curve(points: Sequence[CurvePoint], metric: str, *, is_share: bool) -> str:
    """Held-out score with its interval as a band against the number of labels (log axis)."""
    known = sorted((p for p in points if _finite(p.score) and p.n_labels > 0), key=lambda p: p.n_labels)
    if not known:
        return ""
    with styled("curve"):
        figure = blank(270)
        axes = figure.subplots()
        n = [p.n_labels for p in known]
        axes.fill_between(n, [p.low for p in known], [p.high for p in known], color=_BLUE, alpha=0.18, linewidth=0)
        axes.plot(n, [p.score for p in known], "o-", color=_BLUE, markersize=6, linewidth=2)
        axes.set_xscale("log")
        axes.set_xlim(n[0] / 1.15, n[-1] * 1.15)
        axes.xaxis.set_major_locator(FixedLocator(_spread(n)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("labelled rows")
        axes.set_ylabel(metric)
        _percent_axis(axes.yaxis, is_share)
        return svg(figure, f"Learning curve: held-out {metric} with 95 % interval against the number of labelled rows")


def curves(lines: Sequence[tuple[str, Sequence[int], Sequence[float]]], label: str, *, phases: Sequence[tuple[str, int]] = ()) -> str:
    """Curves over steps, at most two, each ``(name, steps, values)``: the second, dearer to measure, with dots.

    Several ``phases``, each with its last step, measure different things: the curves are broken between them, where a thin line names the
    phase that begins.
    """
    known = [line for line in lines if len(line[1]) > 1]
    if not known:
        return ""
    borders = [last for _, last in phases[:-1]]
    with styled(label):
        figure = blank(230)
        axes = figure.subplots()
        for (name, steps, values), style, colour in zip(known, ("-", "o-"), (_BLUE, _RED), strict=False):
            axes.plot(*_broken(steps, values, borders), style, color=colour, markersize=4, linewidth=1.6, label=name)
        for border, (name, _) in zip(borders, phases[1:], strict=True):
            axes.axvline(border, color=_MUTED, linewidth=0.8)
            how: dict[str, Any] = {"rotation": 90, "va": "top", "ha": "left", "fontsize": 10, "color": _MUTED}
            axes.text(border, 0.98, f" {clip(name, 24)}", transform=axes.get_xaxis_transform(), **how)
        ends = np.quantile(np.concatenate([np.asarray(values) for _, _, values in known]), [0.0, 0.97])
        if known[0][2][0] > 2 * ends[1] - ends[0] and ends[1] > ends[0]:  # a start far above the rest would flatten it
            axes.set_ylim(ends[0] - 0.05 * (ends[1] - ends[0]), ends[1] + 0.3 * (ends[1] - ends[0]))
        if len(known) > 1:
            axes.legend(frameon=False, fontsize=12)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return svg(figure, f"{label} over the steps of training")


def _broken(steps: Sequence[int], values: Sequence[float], borders: Sequence[int]) -> tuple[list[float], list[float]]:
    """The points of a curve with a gap behind each border; a point on it is the last one before it."""
    x, y = [], []
    for i, (step, value) in enumerate(zip(steps, values, strict=True)):
        if i and any(steps[i - 1] <= border < step for border in borders):
            x.append(math.nan)
            y.append(math.nan)
        x.append(float(step))
        y.append(value)
    return x, y


def _spread(values: Sequence[int], least_ratio: float = 1.6) -> list[int]:
    """Those values, from the largest down, that lie far enough apart on a log axis for their labels not to touch."""
    kept: list[int] = []
    for value in sorted(set(values), reverse=True):
        if not kept or kept[-1] / value >= least_ratio:
            kept.append(value)
    return kept


def reliability(bins: Sequence[ReliabilityBin]) -> str:
    """How often predictions were right against how sure they were; the area of a dot is its number of predictions."""
    known = [b for b in bins if b.n > 0 and _finite(b.confidence, b.accuracy)]
    if not known:
        return ""
    with styled("reliability"):
        figure = blank(340)
        figure.set_layout_engine("constrained", w_pad=DOT, h_pad=DOT)
        axes = figure.subplots()
        lowest = max(0.0, math.floor(10 * min(min(b.confidence, b.accuracy) for b in known)) / 10 - 0.05)
        axes.plot([lowest, 1], [lowest, 1], color=_MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        largest = max(b.n for b in known)
        for b in known:
            axes.plot([b.confidence, b.confidence], [b.confidence, b.accuracy], color=_RED, linewidth=1.5, alpha=0.7)
        areas = [36 + 380 * b.n / largest for b in known]
        at = [b.confidence for b in known], [b.accuracy for b in known]
        axes.scatter(*at, s=areas, color=_BLUE, alpha=0.75, linewidth=0, zorder=3, clip_on=False)  # one at 100 % reaches beyond the axes
        axes.set_xlim(lowest, 1)
        axes.set_ylim(lowest, 1)
        axes.set_xlabel("what the model said (mean probability)")
        axes.set_ylabel("how often it was right")
        _percent_axis(axes.xaxis, True)
        _percent_axis(axes.yaxis, True)
        return svg(figure, "Reliability diagram: share of right predictions against mean predicted probability")


def lengths(histogram: Sequence[tuple[int, int, int]], name: str = "tokens per example") -> str:
    """Number of examples by their length; ``name`` says in what."""
    bars = sorted(histogram)
    if not any(n for _, _, n in bars):
        return ""
    edges = [*(first for first, _, _ in bars), max(bars[-1][1], bars[-1][0] + 1)]
    counts = [n for _, _, n in bars]
    with styled("lengths"):
        figure = blank(210)
        axes = figure.subplots()
        axes.stairs(counts, edges, fill=True, color=_BLUE, alpha=0.75, linewidth=0)
        axes.grid(False, axis="x")
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(_thousands())
        axes.xaxis.set_major_formatter(_thousands())
        axes.set_xlabel(name)
        axes.set_ylabel("examples")
        return svg(figure, f"Histogram of {name}")


def _thousands() -> Callable[..., str]:
    return FuncFormatter(lambda v, _: f"{v:,.0f}")  # type: ignore[no-any-return]
