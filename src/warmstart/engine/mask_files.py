"""Images and masks that belong together: in two folders of the same stems, or in two columns of a table."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.core.errors import DataError, FileUnreadable
from warmstart.engine import box_files, images, masks, media
from warmstart.engine.ahead import together
from warmstart.engine.aside import Shed
from warmstart.engine.draft import Table
from warmstart.engine.masks import Mask
from warmstart.engine.tables import read_table

COLUMNS = ("mask", "masks", "segmentation_mask", "mask_path", "mask_file")
"""A column of one of these names that holds images holds masks."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "annotations", "annotation", "segmentationclass", "labels", "annot")
SURE_FOLDERS = ("masks", "mask", "segmentationclass")
BESIDE = ("annot", "_annot", "_masks", "masks", "_mask", "mask", "_labels", "labels")
"""What the folder of masks beside one of images is called: ``trainannot`` beside ``train``."""

ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "_L")
"""What a mask has behind the stem of its image."""

NAME_FILES = ("classes.txt", "labels.txt", "label_colors.txt")


def read(source: Any, *, skip_bad: bool) -> Table | None:
    """``source`` as a table of images with a ``Mask`` in the column ``mask``, or None where it holds no masks.

    A path may be a folder with ``images`` and ``masks``, a folder of images beside one of masks (``train`` and ``trainannot``), or a
    table. Anything else may be a frame, a Dataset or a mapping of columns. What the classes are called stands in ``classes.txt``.

    Raises:
        DataError: The folders below are splits.
        FileUnreadable: A damaged table, or file of names.
    """
    path = media.path_of(source)
    if path is not None and path.is_dir():
        found = _pair(path)
        if found is None:
            _refuse_splits(path)
        return None if found is None else _of_folders(path, *found)
    columns = _columns(source) if path is None else _header(path)
    if not any(name.strip().lower() in COLUMNS for name in columns):
        return None
    table = read_table(source, skip_bad=skip_bad)
    name = next((c for c in table.columns if c.strip().lower() in COLUMNS and media.holds(table.columns[c], _looks)), None)
    others = {c: values for c, values in table.columns.items() if c != name and media.holds(values, images.is_image)}
    if name is None or not others:
        return None
    folder = path.parent if path is not None else Path()
    loaded = load(table.columns[name], folder=folder, names=names_in(folder))
    return replace(table, columns={**table.columns, name: loaded})


def load(values: Sequence[Any], *, folder: Path, names: Mapping[str, str] | None = None) -> list[Any]:
    """Values of a column (files relative to ``folder``, bytes, arrays, images, masks) as masks, decoded in threads; None stays.

    ``names`` says what the values of pixels are called.
    """
    shed = Shed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow about odd metadata
        read = together(lambda value: masks.read(value, folder=folder, shed=shed), values, threads=min(8, os.cpu_count() or 1))
        found = masks.grey_where_all_are(read)
    named = [replace(mask, names=names) if names else mask for mask in found]
    return [None if _missing(value) else mask for value, mask in zip(values, named, strict=True)]


def names_in(*folders: Path) -> dict[str, str]:
    """What values are called, from the first file of names in these folders: a name in each line for 0, 1, ..., or with its number or its
    colour (``64 128 64 Animal``) in front or behind.

    Raises:
        FileUnreadable: A line says something else.
    """
    for path in (folder / name for folder in folders for name in NAME_FILES):
        if path.is_file():
            return _names(path)
    return {}


def _names(path: Path) -> dict[str, str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(f"{path}: {type(error).__name__}", "a name of a class in each line, in UTF-8", "correct it") from None
    cells = [line.replace(",", " ").replace(":", " ").replace("\t", " ").split() for line in lines]

    def numbered(part: Sequence[str], count: int) -> bool:
        return len(part) > count and all(c.isdecimal() and int(c) < 256 for c in part[:count])

    if all(numbered(c, 3) for c in cells):
        return {_colour(c[:3]): " ".join(c[3:]) for c in cells}
    if all(numbered(c[::-1], 3) for c in cells):
        return {_colour(c[-3:]): " ".join(c[:-3]) for c in cells}
    if all(numbered(c, 1) for c in cells):
        return {c[0]: " ".join(c[1:]) for c in cells}
    if any(len(line) > 200 for line in lines):
        raise FileUnreadable(f"{path} holds long lines", "a name of a class in each line", "correct it, or rename the file")
    return {str(i): line for i, line in enumerate(lines)}


def _colour(parts: Sequence[str]) -> str:
    return "#" + "".join(f"{int(p):02x}" for p in parts)


# Folders ------------------------------------------------------------------------------------------------------------------------------


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks that ``folder`` means; None where it means none.

    Raises:
        DataError: There are both, but no mask has the name of an image.
    """
    known = [(i, m) for i, m in _candidates(folder) if m.is_dir()]
    found = next(((i, m) for i, m in known if _masks_of(i, m)), None)
    lonely = [(i, m) for i, m in known if m.name.lower() in SURE_FOLDERS and _images(i)]
    if found is None and lonely:
        given = f"no mask in {lonely[0][1]} is named like an image in {lonely[0][0]}"
        raise DataError(given, "a mask of the same name for each image, such as a.jpg and a.png", "put them there, or rename them")
    return found


def _candidates(folder: Path) -> Iterator[tuple[Path, Path]]:
    inside = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}
    yield from ((inside[i], inside[m]) for i in IMAGE_FOLDERS for m in MASK_FOLDERS if i in inside and m in inside)
    whole = folder.absolute()
    if not any(whole.name.lower().endswith(ending) for ending in BESIDE):
        yield from ((folder, whole.parent / (whole.name + ending)) for ending in BESIDE)
    for above in (whole, whole.parent):  # images/train with masks/train
        if above.name.lower() in IMAGE_FOLDERS:
            siblings = {p.name.lower(): p for p in sorted(above.parent.iterdir()) if p.is_dir()}
            yield from ((folder, siblings[m] / whole.relative_to(above)) for m in MASK_FOLDERS if m in siblings)


def _masks_of(pictures: Path, folder: Path) -> dict[Path, Path]:
    """The mask of each image that has one."""
    known = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in images.SUFFIXES}
    if not known:
        return {}
    found = {p: next((known[p.stem + e] for e in ENDINGS if p.stem + e in known), None) for p in _images(pictures)}
    return {p: mask for p, mask in found.items() if mask is not None}


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in images.SUFFIXES and not p.name.startswith("."))


def _of_folders(source: Path, pictures: Path, folder: Path) -> Table:
    known, files = _masks_of(pictures, folder), _images(pictures)
    paths = [str(p.absolute()) for p in files]
    given = [str(known[p].absolute()) if p in known else _sought(p, folder, known) for p in files]
    above = pictures.absolute().parent
    names = names_in(source, folder, above, above.parent)
    columns = {"image": paths, "mask": load(given, folder=Path(), names=names)}
    return Table(columns, list(range(1, len(files) + 1)), str(source))


def _sought(picture: Path, folder: Path, known: Mapping[Path, Path]) -> Mask:
    """In place of a mask that is missing: one that says so under the name that it should have, as those of the other images have it."""
    like, mask = next(iter(known.items()))
    name = folder.absolute() / (picture.stem + mask.name.removeprefix(like.stem))
    return Mask(np.zeros((0, 0), np.uint8), (), str(name), problem=masks.MISSING)


def _refuse_splits(folder: Path) -> None:
    """Raise where images and their masks lie one level down, in folders for each split."""
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    within = [p for p in inside if p.name.lower() in IMAGE_FOLDERS]
    below = [q for p in [*within, folder] for q in sorted(p.iterdir()) if q.is_dir() and q.name.lower() in media.SPLITS]
    splits = [p for p in below if _pair(p) is not None]
    if splits:
        train = next((p for p in splits if p.name.lower().startswith("train")), splits[0])
        other = next((p for p in splits if p != train), None)
        names = ", ".join(p.name for p in splits)
        do = f"give {train}" + (f", and --test {other}" if other is not None else "")
        raise DataError(f"the folders in {folder} are splits ({names})", "one of them to train on", do)


# Tables -------------------------------------------------------------------------------------------------------------------------------


def _columns(source: Any) -> list[str]:
    """Names of the columns of a frame, a Dataset, a mapping or a list of mappings."""
    if isinstance(source, Mapping):
        return [str(name) for name in source]
    if isinstance(source, list | tuple):
        return [str(name) for name in source[0]] if source and isinstance(source[0], Mapping) else []
    names: Any = getattr(source, "column_names", None)
    return [str(name) for name in (getattr(source, "columns", ()) if names is None else names)]


def _header(path: Path) -> list[str]:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        try:
            with path.open(encoding="utf-8") as file:
                first = json.loads(file.readline(1 << 20))
        except (OSError, ValueError):
            return []
        return [str(name) for name in first] if isinstance(first, Mapping) else []
    return box_files.header(path) if path.suffix.lower() in box_files.TABLE_SUFFIXES else []


def _looks(value: Any) -> bool:
    return isinstance(value, Mask) or images.is_image(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
