"""Boxes around the objects in images: as people label them, as arrays, and how they overlap. G true boxes, D detected ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core import words

Corners: TypeAlias = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax."""

ROUNDING = 1.0
"""A box may leave its image by so many pixels, and is cut there: labelling tools count pixels from 0 or from 1."""


@dataclass(frozen=True)
class Boxes:
    """The objects in one image: one called ``names[i]`` in ``corners[i]``, in pixels of the image, which has ``size`` (width, height)."""

    names: tuple[str, ...]
    corners: tuple[Corners, ...]
    size: tuple[int, int]

    def __str__(self) -> str:
        counts = {name: self.names.count(name) for name in sorted(set(self.names))}
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    @property
    def relative(self) -> NDArray[np.float32]:
        """(G, 4) corners as shares of the width and height of the image."""
        width, height = self.size
        shares: NDArray[np.float32] = np.array(self.corners, np.float32).reshape(-1, 4)
        shares /= np.array([width, height, width, height], np.float32)
        return shares


def problem(corners: Sequence[Any], size: tuple[int, int] | None) -> str | None:
    """Why four numbers are no box in an image of this size (None: unknown), or None when they are."""
    try:
        xmin, ymin, xmax, ymax = (float(v) for v in corners)
    except (TypeError, ValueError):
        return "a corner that is no number"
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        return "a corner that is not finite"
    if xmin > xmax or ymin > ymax:
        return "a box whose minimum is beyond its maximum"
    if xmin == xmax or ymin == ymax:
        return "an empty box"
    if min(xmin, ymin) < -ROUNDING:
        return "a box with a negative corner"
    if size is not None and (xmax > size[0] + ROUNDING or ymax > size[1] + ROUNDING):
        return "a box outside its image"
    if size is not None and (min(xmax, size[0]) <= max(xmin, 0) or min(ymax, size[1]) <= max(ymin, 0)):
        return "a box outside its image"
    return None


def wanted(reason: str) -> str:
    """What ``problem`` expects where it gives this reason."""
    if reason.startswith("a corner"):
        return "four finite numbers for the corners of a box"
    return (
        "xmin < xmax and ymin < ymax" if reason in ("a box whose minimum is beyond its maximum", "an empty box") else "boxes inside images"
    )


def counted(targets: Sequence[Any]) -> list[str]:
    """A sentence of how many boxes are in how many images, where the targets are boxes."""
    given = [target for target in targets if isinstance(target, Boxes)]
    if not given:
        return []
    found, empty = sum(len(boxes.names) for boxes in given), sum(not boxes.names for boxes in given)
    some = f"{words.counted(found, 'box', 'boxes')} in {words.counted(len(given), 'image')}"
    return [some + (f", {empty:,} of which {'has' if empty == 1 else 'have'} none" if empty else "")]


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union (A, B) of two lists of corners, (A, 4) and (B, 4); 0 for boxes without area."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float64).tiny))
