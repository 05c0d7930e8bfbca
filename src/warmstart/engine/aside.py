"""Arrays that a run needs again and again, put aside: few stay in memory, of many most lie in a nameless file in the cache folder.

So what is decoded once is read back at the speed of the disk, and the memory of a run does not grow with its pictures or recordings.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError

IN_MEMORY_BYTES = 256 * 2**20
"""So much of what one ``Shed`` gets stays in memory."""
SMALL_BYTES = 4096
"""Smaller arrays stay in memory in any case: there is little to be won."""
DISK_SHARE = 0.5
"""Of the free disk, a file takes this much at most."""

Remake: TypeAlias = Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Aside:
    """An array (shape, dtype) that is not in memory: ``offset`` bytes into the file of a shed, or made again by ``remake``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shed: Shed | None
    offset: int
    remake: Remake | None = None

    def __call__(self) -> NDArray[Any]:
        """The array, read anew."""
        if self.shed is None:
            assert self.remake is not None  # noqa: S101 - one of both is there
            return self.remake()
        content = self.shed.read(self.offset, int(np.prod(self.shape)) * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def part(self, start: int, stop: int) -> Aside:
        """Entries ``start`` to ``stop`` of the first axis."""
        shape = (stop - start, *self.shape[1:])
        skipped = start * int(np.prod(self.shape[1:])) * self.dtype.itemsize
        return Aside(shape, self.dtype, self.shed, self.offset + skipped, lambda: self()[start:stop])


Kept: TypeAlias = NDArray[Any] | Aside
"""What is kept of an array: itself, or where it lies."""


def opened(kept: Kept | Remake) -> NDArray[Any]:
    """The array."""
    return kept if isinstance(kept, np.ndarray) else kept()


def part(kept: Kept, start: int, stop: int) -> Kept:
    """Entries ``start`` to ``stop`` of the first axis, without reading them."""
    return kept[start:stop] if isinstance(kept, np.ndarray) else kept.part(start, stop)


def changed(name: str, reason: str) -> DataError:
    """What is wrong where something cannot be made again: it has changed since it was read, or is gone."""
    return DataError(f"{name}: {reason}", "files that stay as they are during a run", "put it back, and run the same command again")


class Shed:
    """Where arrays are put aside; its file is gone with the last of them. Any number of threads may use it."""

    def __init__(self) -> None:
        self._room = IN_MEMORY_BYTES
        self._file: int | None = None
        self._end, self._limit, self._full = 0, 0, False
        self._lock = threading.Lock()

    def keep(self, array: NDArray[Any], remake: Remake | None = None) -> Kept:
        """The array itself while there are few, else where it was put; where the disk is full, what makes it again, or itself."""
        if array.nbytes < SMALL_BYTES:
            return array
        with self._lock:
            if array.nbytes <= self._room:
                self._room -= array.nbytes
                return array
            offset = self._reserved(array.nbytes)
        if offset is not None:
            try:
                _write(self._descriptor(), np.ascontiguousarray(array), offset)
                return Aside(array.shape, array.dtype, self, offset)
            except OSError:
                self._full = True
        return array if remake is None else Aside(array.shape, array.dtype, None, 0, remake)

    def read(self, offset: int, size: int) -> bytearray:
        """Bytes of the file."""
        content = bytearray(os.pread(self._descriptor(), size, offset))
        while len(content) < size:  # one call gives 2 GiB at most
            more = os.pread(self._descriptor(), size - len(content), offset + len(content))
            if not more:
                raise OSError("what was put aside is gone")
            content += more
        return content

    def _descriptor(self) -> int:
        assert self._file is not None  # noqa: S101 - something was put there
        return self._file

    def _reserved(self, size: int) -> int | None:
        """Where so many bytes may be written; None where there is no room."""
        if self._file is None and not self._full:
            try:
                folder = _folder()
                folder.mkdir(parents=True, exist_ok=True)
                self._limit = int(shutil.disk_usage(folder).free * DISK_SHARE)
                self._file, name = tempfile.mkstemp(dir=folder)
                weakref.finalize(self, os.close, self._file)
                Path(name).unlink()  # a killed run leaves nothing behind
            except OSError:
                self._full = True
        if self._full or self._end + size > self._limit:
            return None
        self._end += size
        return self._end - size


def _folder() -> Path:
    from warmstart.engine import activations  # brings torch, which few pictures do not need

    return activations.default_root().parent


def _write(file: int, content: NDArray[Any], offset: int) -> None:
    view = content.data.cast("B")
    while len(view):
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
