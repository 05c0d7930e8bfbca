"""Images: decoded once, in threads, to small arrays that are put aside; every file that cannot be used is told apart by what is wrong
with it."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.engine import aside
from warmstart.engine.ahead import together
from warmstart.engine.aside import Kept, Shed

Pixels: TypeAlias = NDArray[np.uint8]
"""(H, W) grey, or (H, W, 3) in RGB."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
MAX_PIXELS = 178_956_970
"""Beyond this an image is refused before it is decoded (Pillow's own limit for an error: 0.5 GB as RGB)."""
ORIENTATION = 0x0112
"""The tag of EXIF that says how the camera was held."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")

FINE = 512
"""Shorter side in pixels to which a large JPEG may come down while it is decoded, which is several times quicker: twice the side that
``need`` may ask for, so that what is made of it differs by less than a re-encoding would."""
LONGEST = 16
"""Of an image that is longer than so many times its breadth only the middle is used: resized whole it could fill the memory."""
KEPT = 96
"""Shorter side in pixels of what is kept of every image, for hand-made features and reports: at most 111 KB."""
SHOWN, PICTURE_BYTES = 192, 9_000
"""Longer side in pixels and size of a picture in a report."""
WHOLE = "crop=None"
"""In the name of the form of pixels that show the whole image, perhaps squeezed."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """One image as it is kept: ``pixels`` as a body takes them, in the geometry that ``form`` names, and ``small`` for all else.

    Both may have been put aside, and are then read anew whenever they are asked for. ``size`` (W, H) and ``digest`` are those of the
    image as it was read. ``problem`` says why it cannot be used ("truncated image"); ``name`` is its file, or what else it was.
    """

    kept_small: Kept
    name: str
    kept: Kept | None = None
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    form: str = ""
    problem: str = ""

    @property
    def small(self) -> Pixels:
        """At most ``KEPT`` pixels high or wide."""
        return aside.opened(self.kept_small)

    @property
    def pixels(self) -> Pixels | None:
        """As a body takes them; None where it was read for none."""
        return None if self.kept is None else aside.opened(self.kept)

    @property
    def shown(self) -> Pixels:
        """The best there is to look at."""
        return aside.opened(self.kept_small if self.kept is None else self.kept)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {self.size[0]}x{self.size[1]}, {self.digest.hex()[:8]})"


Shape: TypeAlias = Callable[[Pixels], Pixels] | None
"""What makes of an image as it was read the one that a body takes; None where there is no body."""

NOTHING: Pixels = np.zeros((0, 0), np.uint8)


def is_image(value: Any) -> bool:
    """Whether one value of a column looks like an image: of Pillow, an array of pixels, bytes, a struct of bytes, or the name of a file."""
    if isinstance(value, str):
        return value.lower().endswith(SUFFIXES) and "://" not in value
    if isinstance(value, os.PathLike):
        return Path(value).suffix.lower() in SUFFIXES
    if isinstance(value, bytes):
        return value.startswith(MAGIC)
    if isinstance(value, Mapping):
        return {"bytes", "path"} >= set(value) and any(is_image(v) for v in value.values())
    if isinstance(value, np.ndarray):
        return value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    return type(value).__module__.partition(".")[0] == "PIL"


def read_all(values: Sequence[Any], *, folder: Path, shape: Shape, form: str, need: int = 0) -> list[Picture]:
    """Every value as a picture, decoded in threads (Pillow decodes outside the interpreter's lock), in the order of ``values``.

    Args:
        values: Paths (relative to ``folder``), bytes, ``{"bytes", "path"}``, arrays or Pillow images.
        folder: Where relative paths begin.
        shape: Makes the pixels that a body takes. With what it gives, and ``KEPT`` pixels beside it, the memory of an image is bounded.
        form: Names what ``shape`` does.
        need: Shorter side in pixels below which ``shape`` would lose something.
    """

    shed = Shed()

    def one(value: Any) -> Picture:
        return value if isinstance(value, Picture) else read(value, folder=folder, shape=shape, form=form, need=need, shed=shed)

    with warnings.catch_warnings():  # for all threads at once: the filters are those of the process
        warnings.simplefilter("ignore")  # of Pillow about odd metadata, and about sizes that are checked here
        if len(values) < 2:
            return [one(value) for value in values]
        return together(one, values, threads=min(8, os.cpu_count() or 1))


def read(value: Any, *, folder: Path, shape: Shape, form: str, need: int = 0, shed: Shed | None = None) -> Picture:
    """One value as a picture, its pixels put into ``shed``; a broken one has a ``problem``."""
    name, opened = _named(value, folder)
    if isinstance(opened, str):
        return Picture(NOTHING, name, problem=opened)
    try:
        found = opened if isinstance(opened, np.ndarray) else _decoded(opened, FINE)
        if isinstance(found, str):
            return Picture(NOTHING, name, problem=found)
        decoded, (width, height) = found if isinstance(found, tuple) else (found, found.shape[1::-1])
        pixels = _plain(decoded)
    except ValueError as error:
        return Picture(NOTHING, name, problem=str(error))
    if not pixels.size:
        return Picture(NOTHING, name, problem="empty image")
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    whole = None
    if shape is not None:
        came_down = pixels.shape[1] != width and 2 * need > FINE
        again = _decoded(opened, None) if came_down else None  # what is kept in small must not depend on the body
        whole = np.ascontiguousarray(shape(_middle(pixels if not isinstance(again, tuple) else again[0])))
    picture = Picture(reduced(pixels), name or f"array of {width}x{height} pixels", whole, (width, height), digest.digest(), form)
    return picture if shed is None else _put_aside(picture, shed, partial(_again, value, picture.digest, folder, shape, need))


def _put_aside(picture: Picture, shed: Shed, again: Callable[..., Pixels]) -> Picture:
    small = shed.keep(picture.small, partial(again, "small"))
    return replace(picture, kept_small=small, kept=None if picture.pixels is None else shed.keep(picture.pixels, partial(again, "pixels")))


def _again(value: Any, digest: bytes, folder: Path, shape: Shape, need: int, which: str) -> Pixels:
    """What was made of an image, made again where there was no room to keep it.

    Raises:
        DataError: It has changed, or is gone.
    """
    found = read(value, folder=folder, shape=shape, form="", need=need)
    if found.problem or found.digest != digest:
        raise aside.changed(found.name, found.problem or "another image than when the run began")
    kept: Pixels = getattr(found, which)
    return kept


def _named(value: Any, folder: Path) -> tuple[str, Any]:
    """The name of a value, and what to decode: bytes, an array, a Pillow image; or, as text, why there is nothing to decode."""
    if isinstance(value, Mapping):
        name = str(value.get("path") or "")
        return (name, value["bytes"]) if value.get("bytes") is not None else _named(name or None, folder)
    if isinstance(value, str | os.PathLike):
        return str(value), _content(folder / value)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes", value
    if isinstance(value, np.ndarray):
        return "", value
    if type(value).__module__.partition(".")[0] == "PIL":
        return getattr(value, "filename", ""), value
    missing = value is None or value != value
    return "", "missing image" if missing else f"not an image but a {type(value).__name__}"


def _content(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return "no such file"
    except IsADirectoryError:
        return "a folder, not an image"
    except (OSError, ValueError):
        return "unreadable file"


def _decoded(source: Any, fine: int | None) -> tuple[Pixels, tuple[int, int]] | str:
    """Pixels of bytes or of a Pillow image, and its size (W, H); as text what is wrong with it.

    The shorter side of a JPEG in bytes may come down while it is decoded, not below ``fine`` (None: it stays as it is).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if source == b"":
        return "empty file"
    try:
        image = Image.open(io.BytesIO(source), formats=FORMATS) if isinstance(source, bytes) else source
        if image.width * image.height > MAX_PIXELS:
            return "too many pixels"
        size = image.size
        if fine is not None and isinstance(source, bytes) and image.format == "JPEG":
            factor = fine / min(size)
            image.draft(None, (math.ceil(size[0] * factor), math.ceil(size[1] * factor)))
        image.load()
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return _flat(ImageOps.exif_transpose(image)), size[::-1] if turned else size
    except UnidentifiedImageError:
        return "not an image"
    except Image.DecompressionBombError:
        return "too many pixels"
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
        return "truncated image" if "truncated" in str(error) or isinstance(error, EOFError) else "damaged image"


def _flat(image: Any) -> Pixels:
    """Grey or RGB in 8 bits: 16 bits are scaled, palettes and CMYK converted, what is transparent lies on white."""
    from PIL import Image

    mode = image.mode
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if mode.startswith("I") or mode == "F":
        return _eight_bits(np.asarray(image))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
        return np.asarray(image.convert("L" if mode in ("LA", "La") else "RGB"))
    return np.asarray(image.convert("RGB"))


def _plain(pixels: NDArray[Any]) -> Pixels:
    """An array of any number type as (H, W) or (H, W, 3) uint8.

    Raises:
        ValueError: It has no such form; says which it has.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.dtype == np.uint8:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError("an array that is not (H, W), (H, W, 3) or (H, W, 4)")
    return pixels if pixels.dtype == np.uint8 else _eight_bits(pixels)


def _eight_bits(values: NDArray[Any]) -> Pixels:
    """Numbers as 0 to 255: from 16 bits where any is larger than 255, from 0 to 1 where all floats are.

    Raises:
        ValueError: They are neither.
    """
    if not values.size:
        return values.astype(np.uint8)
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 65535:
        raise ValueError("pixels that are not numbers from 0 to 65,535")
    if high > 255 or values.dtype == np.uint16:
        factor = 1 / 257
    else:
        factor = 255.0 if np.issubdtype(values.dtype, np.floating) and high <= 1 else 1.0
    found: Pixels = np.rint(values * factor).astype(np.uint8)
    return found


def rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3), from grey too."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def grey(pixels: Pixels) -> Pixels:
    """(H, W): luminance as Pillow has it (ITU-R 601-2)."""
    if pixels.ndim == 2:
        return pixels
    weighted = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def _middle(pixels: Pixels) -> Pixels:
    """The middle of an image that is much longer than broad; any other as it is."""
    height, width = pixels.shape[:2]
    most = LONGEST * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return pixels[top : top + most, left : left + most]


def reduced(pixels: Pixels) -> Pixels:
    """Pixels whose shorter side is at most ``KEPT`` and the longer at most four times that; smaller ones stay as they are."""
    height, width = pixels.shape[:2]
    factor = min(KEPT / min(height, width), 4 * KEPT / max(height, width))
    found = pixels if factor >= 1 else resized(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
    return np.ascontiguousarray(found)


def resized(pixels: Pixels, height: int, width: int, *, resample: int = 2) -> Pixels:
    """With these sides, by Pillow (2: bilinear, with antialiasing)."""
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling(resample)))


def data_uri(picture: Picture) -> str:
    """A small JPEG of at most ``PICTURE_BYTES``, as text that a page can hold; PNG for the smallest, which JPEG would blur.

    Of what is kept of an image the finer: what its body takes (the middle, where that was cut out of it), else the small copy.
    """
    from PIL import Image

    if not picture.small.size:
        return ""
    image = Image.fromarray(_finest(picture))
    image.thumbnail((SHOWN, SHOWN))
    attempts: list[tuple[str, dict[str, Any]]] = [("PNG", {})] if max(image.size) <= 32 else []
    attempts += [("JPEG", {"quality": quality}) for quality in (85, 75, 60, 30)]
    for kind, options in attempts:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        if buffer.tell() <= PICTURE_BYTES:
            return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return ""


def _finest(picture: Picture) -> Pixels:
    """The pixels of a body in the proportions that the image has, where they are more than the small copy's."""
    pixels, small = picture.pixels, picture.small
    if pixels is None or min(pixels.shape[:2]) <= min(small.shape[:2]):
        return small
    if WHOLE not in picture.form:
        return pixels
    height, width = pixels.shape[:2]
    long = max(picture.size) / min(picture.size) * min(height, width)  # squeezed along the longer side, perhaps
    sides = (min(height, width), round(long))
    return resized(pixels, *(sides if picture.size[0] >= picture.size[1] else sides[::-1]))


def fitted(picture: Picture, shape: Callable[[Pixels], Pixels], form: str) -> Pixels:
    """The pixels of a picture in this form; of one that was read for something else, from what is kept of it."""
    return picture.shown if picture.kept is not None and picture.form == form else np.ascontiguousarray(shape(picture.shown))
