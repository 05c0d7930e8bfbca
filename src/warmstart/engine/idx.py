"""IDX files, in which the MNIST family of data sets comes."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError, FileUnreadable
from warmstart.engine.draft import Table

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: Path) -> Table | None:
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
