"""Which classes are taken for which: ordered so that clusters show, drawn, and said in a sentence. C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from warmstart.engine import plots, transcripts
from warmstart.engine.plots import clip

NUMBERED, MOST = 12, 40
"""Up to so many classes the matrix shows counts; of more than the second only the most confused part is drawn."""
RIGHT_RGB, WRONG_RGB = (31, 111, 180), (213, 94, 0)

Counts = NDArray[np.int64]
"""(C, C) rows of true class i (down) that were predicted as class j (across)."""


@dataclass(frozen=True)
class Pair:
    """``count`` of the ``of`` rows of ``truth`` were taken for ``predicted``."""

    truth: str
    predicted: str
    count: int
    of: int


def table(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Counts:
    """As an array; empty where it is no square of as many classes as there are labels."""
    found = np.asarray(counts, dtype=np.int64)
    return found if found.shape == (len(labels), len(labels)) else np.zeros((0, 0), np.int64)


def mistakes(counts: Counts) -> tuple[Counts, Counts]:
    """The counts off the diagonal, and above it those of both directions together."""
    wrong = counts - np.diag(counts.diagonal())
    return wrong, np.triu(wrong + wrong.T)


def pairs(labels: Sequence[str], counts: Counts, most: int) -> list[Pair]:
    """The mistakes that were made most often, largest first."""
    wrong, _ = mistakes(counts)
    cells = [divmod(int(cell), len(labels)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return [Pair(labels[i], labels[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in cells if wrong[i, j]]


def sentence(labels: Sequence[str], counts: Counts, *, whole: bool) -> str:
    """Which two classes are mixed up most, in words; empty where there is no mistake. ``whole``: all mistakes are among the counts."""
    wrong, both = mistakes(counts)
    told = np.array([label != transcripts.NOTHING for label in labels], bool)
    both = both * np.outer(told, told)
    if not both.any():
        return ""
    i, j = (int(k) for k in np.unravel_index(int(both.argmax()), both.shape))
    i, j = (i, j) if wrong[i, j] >= wrong[j, i] else (j, i)
    a, b = clip(labels[i], 60), clip(labels[j], 60)
    said = f"“{a}” and “{b}” are mixed up most: {wrong[i, j]:,} of {counts[i].sum():,} “{a}” were taken for “{b}”"
    said += f", {wrong[j, i]:,} of {counts[j].sum():,} the other way" if wrong[j, i] else ", none the other way"
    share = 100 * both[min(i, j), max(i, j)] / wrong.sum()
    return f"{said}. That is {share:.0f}\u00a0% of all mistakes." if whole and len(labels) > 2 else f"{said}."


def order(counts: Counts) -> list[int]:
    """An order of the classes that puts those next to each other that are mistaken for each other (average linkage, optimal leaves)."""
    shares = _shares(counts)
    alike = (shares + shares.T) / 2
    np.fill_diagonal(alike, 0)
    if len(alike) < 4 or not alike.any():
        return list(range(len(alike)))
    distance = 1 - alike / alike.max()
    np.fill_diagonal(distance, 0)
    return [int(i) for i in leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))]


def part(counts: Counts) -> NDArray[np.int64]:
    """The classes that are drawn: all, or those of the pairs that are mixed up most often, sorted."""
    if len(counts) <= MOST:
        return np.arange(len(counts))
    _, both = mistakes(counts)
    kept: dict[int, None] = {}
    for cell in np.argsort(-both, axis=None, kind="stable"):
        i, j = divmod(int(cell), len(counts))
        if not both[i, j] or len(kept | {i: None, j: None}) > MOST:
            break
        kept |= {i: None, j: None}
    return np.sort(np.array(list(kept), np.int64))


def matrix(labels: Sequence[str], counts: Counts) -> str:
    """Heat map, true class down and predicted class across: blue where right, orange where wrong; stronger: a larger share of the row."""
    kept = part(counts)
    kept = kept[order(counts[np.ix_(kept, kept)])]
    if not len(kept):
        return ""
    shares = _shares(counts)[np.ix_(kept, kept)]
    names, size = [clip(labels[i], 22) for i in kept], len(kept)
    with plots.styled("confusion"):
        figure = _canvas(size)
        axes = figure.subplots()
        axes.grid(False)
        axes.imshow(_cells(shares), interpolation="none", aspect="auto", resample=False)
        if size <= NUMBERED:
            _numbers(axes, counts[np.ix_(kept, kept)], shares)
        _class_axis(axes, names)
        return plots.svg(figure, f"Confusion matrix of {size} classes: true class down, predicted class across")


def _shares(counts: Counts) -> NDArray[np.float64]:
    """Of the rows of each true class."""
    found: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return found


def _canvas(size: int) -> Figure:
    if size <= NUMBERED:
        return plots.blank(min(150 + 42 * size, plots.WIDTH))
    return plots.blank(190 + 16 * size, width=680)


def _cells(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One RGBA pixel per cell, see-through so that it suits a light and a dark page; the root lets small shares be seen."""
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = WRONG_RGB
    pixels[np.eye(len(shares), dtype=bool), :3] = RIGHT_RGB
    pixels[..., 3] = np.rint(255 * np.where(shares > 0, 0.12 + 0.88 * np.sqrt(shares), 0))
    return pixels


def _numbers(axes: Any, counts: Counts, shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if shares[row, column] > 0.7 else plots.INK
            small = 9.5 if len(counts) > 8 or count > 9999 else 13
            text = f"{count:,}" if count < 100_000 else f"{count:.2g}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=small)


def _class_axis(axes: Any, names: Sequence[str]) -> None:
    size = len(names)
    fontsize = 13 if size <= 8 else 11
    slanted = max(len(n) for n in names) * size > 34
    axes.set_yticks(range(size), names, fontsize=fontsize)
    axes.set_xticks(range(size), names, fontsize=fontsize, rotation=90 if size > NUMBERED else 40 if slanted else 0)
    if slanted and size <= NUMBERED:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for spine in axes.spines.values():
        spine.set_visible(True)
