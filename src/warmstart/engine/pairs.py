"""The files under the activation store: a data file that only grows, and the index of what is in it.

    <uuid>.data    the rows of one item after another, nothing between them
    <uuid>.index   one RECORD of 36 bytes an item: what it is, where it lies, how long it is, and two checksums

A pair has one writer for ever, so writers need no locks among themselves. Data is written before its record: a process killed at any
moment leaves data that no record mentions, or a record cut short, and both are ignored. Whoever writes or maps a pair holds a shared
``flock`` on its data, which the system takes back from a killed process; only a pair that nobody holds is ever deleted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import uuid
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform != "win32":  # on Windows a file that is open cannot be deleted, which protects pairs in use just as well
    import fcntl

KEY_BYTES = 16
RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("start", "<u8"), ("rows", "<u4"), ("data_crc", "<u4"), ("crc", "<u4")])
"""``start`` counts rows from the beginning of the data; ``data_crc`` covers the item; ``crc`` covers the other fields (CRC-32)."""

Rows = NDArray[Any]
"""(N,) of ``V<row bytes>``: numpy copies such rows ten times faster than it copies a (N, row bytes) array of bytes."""


class PairWriter:
    """One new pair of files, open for appending until it is closed or garbage-collected.

    Raises:
        OSError: The files cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.name = uuid.uuid4().hex
        self.process = os.getpid()
        self.rows = self.size = 0
        data = open(folder / f"{self.name}.data", "xb+", buffering=0)  # noqa: SIM115 - stays open with the writer
        self._files = [data]
        # closes at garbage collection too: a shelf that nobody closed is no reason for a ResourceWarning
        self.close = weakref.finalize(self, _close, self._files)
        _lock(data.fileno(), exclusive=False)
        index = open(folder / f"{self.name}.index", "xb", buffering=0)  # noqa: SIM115
        self._files.append(index)

    @property
    def data_file(self) -> int:
        """The descriptor of the data: it can be mapped even when somebody has deleted the file."""
        return self._files[0].fileno()

    def append(self, keys: Sequence[bytes], counts: Sequence[int], data: Rows) -> NDArray[Any]:
        """Write items of ``counts`` rows each, which lie one after another in ``data``; gives back their RECORDs.

        Raises:
            OSError: The disk is full or not writable. What was written of this batch will be ignored; the writer must be closed.
        """
        ends = np.cumsum(counts)
        records = np.empty(len(keys), RECORD)
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["start"] = self.rows + ends - counts
        records["rows"] = counts
        records["data_crc"] = [zlib.crc32(data[end - count : end].data) for end, count in zip(ends.tolist(), counts, strict=True)]
        records["crc"] = _record_crcs(records.tobytes())
        for file, content in zip(self._files, (data, records), strict=True):  # the data first
            _write(file.fileno(), content)
            self.size += content.nbytes
        self.rows += len(data)
        return records


def _close(files: list[Any]) -> None:
    for file in files:
        file.close()


def _write(file: int, content: NDArray[Any]) -> None:
    left = content.view(np.uint8).data
    while left:  # one write may take only a part, on a disk that is filling up
        left = left[os.write(file, left) :]


def _record_crcs(raw: bytes) -> list[int]:
    view = memoryview(raw)
    covered = RECORD.itemsize - 4
    return [zlib.crc32(view[at : at + covered]) for at in range(0, len(raw), RECORD.itemsize)]


def _lock(file: int, *, exclusive: bool) -> None:
    if sys.platform != "win32":
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def read_index(path: Path, *, start: int) -> tuple[NDArray[Any], int]:
    """The whole, undamaged RECORDs of an index from byte ``start`` on, and the byte from which to read next time.

    A record at the end whose checksum is wrong may still be on its way to the disk: it is read again next time.

    Raises:
        OSError: The index is gone.
    """
    with open(path, "rb") as file:
        file.seek(start)
        raw = file.read()
    raw = raw[: len(raw) // RECORD.itemsize * RECORD.itemsize]
    records = np.frombuffer(raw, RECORD)
    sound = np.flatnonzero(records["crc"] == np.array(_record_crcs(raw), np.uint32))
    read = int(sound[-1]) + 1 if len(sound) else 0
    return records[sound], start + read * RECORD.itemsize


@dataclass(frozen=True)
class MappedData:
    """The data of a pair as memory; the pair cannot be evicted while this exists."""

    rows: Rows
    memory: mmap.mmap | None

    def release(self) -> None:
        """Give the resident pages back: they stay in the page cache, but no longer count as this process's memory."""
        if self.memory is not None and hasattr(self.memory, "madvise"):
            self.memory.madvise(mmap.MADV_DONTNEED)


def map_pair(path: Path, row_bytes: int, *, writer: PairWriter | None = None) -> MappedData:
    """Map the data file ``path`` (or the one that ``writer`` has open) as it is now.

    Raises:
        OSError: The file is gone, or just being deleted.
    """
    with contextlib.ExitStack() as stack:
        if writer is None:
            file = stack.enter_context(open(path, "rb", buffering=0)).fileno()
            _lock(file, exclusive=False)  # held by the mapping, which keeps a duplicate of the descriptor
        else:
            file = writer.data_file
        n_rows = os.fstat(file).st_size // row_bytes
        if not n_rows:
            return MappedData(np.empty(0, f"V{row_bytes}"), None)
        memory = mmap.mmap(file, n_rows * row_bytes, access=mmap.ACCESS_READ)
    with contextlib.suppress(OSError):
        os.utime(path.with_suffix(".index"))  # "used now", for the least-recently-used eviction
    return MappedData(np.frombuffer(memory, f"V{row_bytes}"), memory)


@dataclass(frozen=True)
class Pair:
    """A pair as it lies on disk: bytes of both files, number of records, and when it was last used (seconds since 1970)."""

    folder: Path
    name: str
    size: int
    records: int
    used: float

    def delete(self) -> bool:
        """Delete both files unless some process writes or maps them; True when they are gone."""
        data, index = (self.folder / f"{self.name}{suffix}" for suffix in (".data", ".index"))
        try:
            with contextlib.suppress(FileNotFoundError), open(data, "rb+") as file:
                _lock(file.fileno(), exclusive=True)
                index.unlink(missing_ok=True)  # first, so that no index ever speaks of data that is not there
                data.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
        except OSError:
            return False
        return True


def list_pairs(folder: Path) -> list[Pair]:
    """The pairs in one folder, least recently used first; files that vanish meanwhile are left out."""
    found: dict[str, dict[str, os.stat_result]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if suffix in (".data", ".index"):
                with contextlib.suppress(OSError):
                    found.setdefault(name, {})[suffix] = entry.stat()
    pairs = []
    for name, files in found.items():
        records = files[".index"].st_size // RECORD.itemsize if ".index" in files else 0
        used = max(file.st_mtime for file in files.values())
        pairs.append(Pair(folder, name, sum(file.st_size for file in files.values()), records, used))
    return sorted(pairs, key=lambda pair: pair.used)
