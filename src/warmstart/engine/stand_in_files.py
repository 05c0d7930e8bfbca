"""Sources that only images come in: folders of image files, one folder a class, and IDX files of the MNIST family."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError, FileNotFound, FileUnreadable
from warmstart.engine.draft import Table

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_folder(folder: Path, *, suffixes: Sequence[str], role: str) -> Table | None:
    """Files with these suffixes below ``folder`` as columns ``role`` (paths) and ``label`` (the folder directly below ``folder``).

    Files that lie in ``folder`` itself have no label; where all do, there is no label column. None where there is no such file.

    Raises:
        DataError: The folders below are splits rather than classes.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not _hidden(p.relative_to(folder)))
    if not files:
        return None
    inside = [p.relative_to(folder).parts for p in files]
    classes = {parts[0] for parts in inside if len(parts) > 1}
    if len(classes) > 1 and {name.lower() for name in classes} <= SPLITS:
        shown = sorted(classes)
        train = next((name for name in shown if name.lower().startswith("train")), shown[0])
        other = next(name for name in shown if name != train)
        raise DataError(
            f"the folders in {folder} are splits ({', '.join(shown)}), not classes",
            "a folder with one folder for each class",
            f"give {folder / train}, and --test {folder / other}",
        )
    columns: dict[str, list[Any]] = {role: [str(p.absolute()) for p in files]}
    if classes:
        columns["label"] = [parts[0] if len(parts) > 1 else None for parts in inside]
    return Table(columns, list(range(1, len(files) + 1)), str(folder))


def read_idx(path: Path) -> Table | None:
    """An IDX file of images (``*-images-idx3-ubyte``, gzipped or not) and, where it lies beside it, its file of labels; else None.

    Raises:
        FileUnreadable: The file is damaged.
        DataError: Images and labels differ in number.
    """
    if "idx" not in path.name or not path.is_file():
        return None
    images = _idx(path)
    if images.ndim not in (3, 4):
        raise FileUnreadable(f"{path} holds {images.ndim - 1} numbers an example", "an IDX file of images", "name the file of images")
    columns: dict[str, list[Any]] = {"image": list(images)}
    beside = path.with_name(path.name.replace("images", "labels").replace(f"idx{images.ndim}", "idx1"))
    if beside != path and beside.is_file():
        labels = _idx(beside)
        if len(labels) != len(images):
            raise DataError(f"{path} has {len(images):,} images, {beside.name} {len(labels):,} labels", "as many", "get both again")
        columns["label"] = [str(label) for label in labels.tolist()]
    return Table(columns, list(range(1, len(images) + 1)), str(path))


def _idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file: two zero bytes, the type, the number of dimensions, each as 4 bytes, then the numbers."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise FileUnreadable(f"{path}: {error}", "a file that can be read to its end", "get it again") from None
    kind = IDX_TYPES.get(content[2] if len(content) > 3 and content[:2] == b"\0\0" else -1)
    n_dims = content[3] if len(content) > 3 else 0
    start = 4 + 4 * n_dims
    if kind is None or len(content) < start:
        raise FileUnreadable(f"{path} does not begin as an IDX file", "an IDX file (yann.lecun.com/exdb/mnist)", "get it again")
    shape = np.frombuffer(content, ">u4", n_dims, 4).astype(int)
    expected = start + int(np.prod(shape)) * np.dtype(kind).itemsize
    if len(content) != expected:
        raise FileUnreadable(f"{path} has {len(content):,} bytes where its header promises {expected:,}", "a whole file", "get it again")
    values = np.frombuffer(content, kind, offset=start).reshape(tuple(shape))
    return values.astype(values.dtype.newbyteorder("="))


def require_folder(source: Any) -> Path | None:
    """The folder that a source names; None for anything else.

    Raises:
        FileNotFound: Never; a name of nothing is left to the reader of tables.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        return Path(source) if Path(source).is_dir() else None
    except (OSError, ValueError):
        raise FileNotFound(f"{str(source)[:80]!r} is no path", "an existing file or folder", "check the path") from None


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def read(source: Any, *, skip_bad: bool) -> Table | None:
    """Until the image modality is there."""
    from warmstart.engine import stand_in_images

    folder = require_folder(source)
    if folder is not None:
        return read_folder(folder, suffixes=stand_in_images.SUFFIXES, role="image")
    return read_idx(Path(source)) if isinstance(source, str | os.PathLike) else None


def infer(columns: Any, given: Any) -> dict[str, str]:
    """Until the image modality is there."""
    return {"image": given.get("image", "image"), **given}


def folder_of(source: str) -> Path:
    """Until the image modality is there."""
    path = Path(source)
    return path.parent if path.is_file() else Path()
