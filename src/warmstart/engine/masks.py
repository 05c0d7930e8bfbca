"""Masks: the class of every pixel of an image, as people label them and as arrays. H W pixels, C classes, N images."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.engine.aside import Kept, Shed, changed, opened
from warmstart.engine.images import MAX_PIXELS

Cells: TypeAlias = NDArray[np.uint8]
"""(H, W) classes, or numbers of values."""

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("PNG", "TIFF", "BMP", "GIF")
MISSING = "no such mask"
MAX_VALUES = 256
"""An image with more different values is a photograph, not a mask."""

KEPT = 512
"""Longer side in pixels to which a mask comes down when it is read: metrics are measured on no more."""

SAME_FORM = 0.02
"""Give or take so much, a mask has the ratio of sides of its image."""

VOID, UNKNOWN, MOST_CLASSES = 255, 254, 254
"""In targets: a pixel that does not count; one of a class that the model does not know, which counts as an error."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The classes in one image: ``values[cells[y, x]]`` is what stands at a pixel: a number ("7"), or a colour ("#408040").

    The cells may have been put aside, and are then read anew whenever they are asked for. ``names`` says what values are called, where
    that is known. ``size`` (W, H) and ``digest`` are those of the mask as it was read;
    ``problem`` says why it cannot be used.
    """

    kept: Kept
    values: tuple[str, ...]
    name: str = ""
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    problem: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> Cells:
        """(H, W) positions in ``values``."""
        return opened(self.kept)

    def __str__(self) -> str:
        shares = np.bincount(self.cells.ravel(), minlength=len(self.values)) / max(1, self.cells.size)
        order = np.argsort(-shares, kind="stable")[:6]
        return ", ".join(f"{self.names.get(self.values[i], self.values[i])} {100 * shares[i]:.0f} %" for i in order if shares[i] > 0)

    def __repr__(self) -> str:
        return f"Mask({Path(self.name).name!r}, {self.size[0]}x{self.size[1]}, {self.digest}, {sorted(self.names.items())})"


def read(value: Any, *, folder: Path = Path(), shed: Shed | None = None) -> Mask:
    """A file, bytes, an image of Pillow or an array as a mask, its cells put into ``shed``; a broken one has a ``problem``."""
    if isinstance(value, Mask):
        return value
    name, opened = _opened(value, folder)
    numbers = opened if isinstance(opened, str) else _numbers(opened)
    if isinstance(numbers, str):
        return Mask(np.zeros((0, 0), np.uint8), (), name, problem=numbers)
    pixels, coloured = numbers
    distinct, places = np.unique(pixels, return_inverse=True)
    if len(distinct) > MAX_VALUES:
        return Mask(np.zeros((0, 0), np.uint8), (), name, problem=f"a mask with more than {MAX_VALUES} values, as a photograph has")
    values = tuple(f"#{v:06x}" if coloured else str(v) for v in distinct.tolist())
    whole = places.reshape(pixels.shape).astype(np.uint8)
    digest = hashlib.blake2b(repr((pixels.shape, values)).encode() + whole.tobytes(), digest_size=8).hexdigest()
    height, width = pixels.shape
    factor = min(1.0, KEPT / max(height, width))
    cells = resized(whole, max(1, round(height * factor)), max(1, round(width * factor)))
    kept = cells if shed is None else shed.keep(cells, partial(_again, value, digest, folder))
    return Mask(kept, values, name or f"mask of {width}x{height} pixels", (width, height), digest)


def _again(value: Any, digest: str, folder: Path) -> Cells:
    """The cells of a mask that there was no room to keep.

    Raises:
        DataError: It has changed, or is gone.
    """
    found = read(value, folder=folder)
    if found.problem or found.digest != digest:
        raise changed(found.name, found.problem or "another mask than when the run began")
    return found.cells


def fits(mask: Mask, size: tuple[int, int]) -> bool:
    """Whether an image of this size (W, H) has the form of the mask: both may differ in size, not in the ratio of their sides."""
    ratio = mask.size[0] * size[1] / max(1, mask.size[1] * size[0])
    return abs(ratio - 1) <= SAME_FORM or abs(mask.size[0] - size[0]) + abs(mask.size[1] - size[1]) <= 2


def resized(cells: Cells, height: int, width: int) -> Cells:
    """With these sides, each pixel that of the nearest before: classes cannot be mixed."""
    if cells.shape == (height, width):
        return cells
    rows = ((np.arange(height) + 0.5) * cells.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * cells.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(cells[rows[:, None], columns])


def grey_where_all_are(masks: Sequence[Mask]) -> list[Mask]:
    """The same masks; where those in RGB hold no colour in any of them, their values are numbers."""
    coloured = [v for mask in masks for v in mask.values if v.startswith("#")]
    if not coloured or any(not v[1:3] == v[3:5] == v[5:] for v in coloured):
        return list(masks)

    def number(value: str) -> str:
        return str(int(value[1:3], 16)) if value.startswith("#") else value

    return [replace(mask, values=tuple(map(number, mask.values))) for mask in masks]


def _opened(value: Any, folder: Path) -> tuple[str, Any]:
    """The name of a value, and bytes, an array or an image; or, as text, why there is nothing to open."""
    if isinstance(value, Mapping) and {"bytes", "path"} >= set(value):
        name = str(value.get("path") or "")
        return (name, value["bytes"]) if value.get("bytes") is not None else _opened(name or None, folder)
    if isinstance(value, str | os.PathLike):
        path = folder / value
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return str(value), "a mask in JPEG, which mixes classes"
        try:
            return str(value), path.read_bytes()
        except FileNotFoundError:
            return str(value), MISSING
        except (OSError, ValueError):
            return str(value), "an unreadable mask"
    if isinstance(value, bytes | np.ndarray) or type(value).__module__.partition(".")[0] == "PIL":
        return str(getattr(value, "filename", "")), value
    return "", "missing mask"


def _numbers(source: Any) -> tuple[NDArray[np.int64], bool] | str:
    """(H, W) numbers of bytes, an image or an array, and whether they are colours; as text what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, np.ndarray):
        return _of_array(source)
    try:
        image = Image.open(io.BytesIO(source), formats=FORMATS) if isinstance(source, bytes) else source
        if image.width * image.height > MAX_PIXELS:
            return "a mask with too many pixels"
        image.load()
    except UnidentifiedImageError:
        return "a mask that is no PNG, TIFF, BMP or GIF"
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return "a damaged mask"
    if image.mode == "1":
        return np.asarray(image).astype(np.int64), False
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    if image.mode in ("P", "L") or image.mode.startswith("I"):  # of a palette the number is the class, not the colour
        return _of_array(np.asarray(image))
    return _of_array(np.asarray(image)) if image.mode in ("RGB", "RGBA") else f"a mask of mode {image.mode}"


def _of_array(array: NDArray[Any]) -> tuple[NDArray[np.int64], bool] | str:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
        return "a mask that holds no whole numbers"
    if not array.size:
        return "an empty mask"
    if array.ndim == 3 and array.shape[2] in (3, 4):
        wide = array.astype(np.int64)
        return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], True
    return (array.astype(np.int64), False) if array.ndim == 2 else "a mask that is not (H, W) or (H, W, 3)"
