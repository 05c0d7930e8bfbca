"""Colours of classes over pictures: first those that are told apart best, by every reader."""

from __future__ import annotations

import colorsys

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#ff2da5", "#b4e12d", "#783c3c", "#ffd2a5", "#f0c3ff", "#2d2db4", "#697800", "#00f0ff", "#c378ff"),
    *("#00f087", "#870078", "#e10f4b", "#ffb400", "#e18796", "#1e4b2d", "#0f96a5", "#96e1b4", "#a578b4", "#3cb41e", "#1e87ff", "#870f00"),
)
"""Three of Okabe & Ito (2008); each further one is the farthest in CIELAB from all before it, also as deuteranopes see it (Machado et al.
2009), among colours that are neither near white nor near black nor glaring."""


def of(label: int) -> tuple[int, int, int]:
    """Of a class; beyond those 24, hues by the golden ratio."""
    if label < len(COLOURS):
        code = COLOURS[label]
        return int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16)
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, (0.55, 0.9)[label % 2], (0.9, 0.6)[label // 2 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def written(label: int) -> str:
    """The same as ``#rrggbb``."""
    red, green, blue = of(label)
    return f"#{red:02x}{green:02x}{blue:02x}"
