"""One shelf of the activation store: what one frozen prefix gave for each example, found by the example's content."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from warmstart.engine.pairs import KEY_BYTES, RECORD, MappedData, PairWriter, Rows, map_pair, read_index

MOST_MAPPINGS = 256  # each holds one descriptor; 1024 is a usual limit for a whole process
MOST_RESIDENT_BYTES = 128 * 2**20
FAULT_BYTES = 64 * 1024  # Linux maps up to this much around the one page that was touched

ENTRY = np.dtype(
    [("file", "i4"), ("sound", "?"), ("crc", "u4"), ("start", "i8"), ("rows", "i8"), ("older", "i8")],
    align=True,
)
Ints = NDArray[np.int64]


class Room(Protocol):
    """How much may still be written, as all shelves of one store agree on it."""

    @property
    def pair_bytes(self) -> int:
        """The size at which a pair of files is finished and the next one begun."""

    def reserve(self, size: int) -> None:
        """Make room for ``size`` more bytes; OSError when there is none."""

    def stop(self, problem: OSError) -> None:
        """Nothing more can be written in this run."""


class Catalogue:
    """Where each stored item lies: a table of ENTRYs, newest first for each key (about 180 bytes an item)."""

    def __init__(self) -> None:
        self._newest: dict[bytes, int] = {}
        self._table = np.empty(64, ENTRY)
        self._size = 0

    def add(self, file: int, records: NDArray[Any], *, sound: bool) -> None:
        """Enter the RECORDs of one file; ``sound`` says that their data needs no more checking."""
        end = self._size + len(records)
        if end > len(self._table):
            self._table = np.concatenate([self._table, np.empty(end, ENTRY)])
        new = self._table[self._size : end]
        new["file"], new["sound"], new["crc"] = file, sound, records["data_crc"]
        new["start"], new["rows"] = records["start"], records["rows"]
        for at, key in enumerate(records["key"].tolist(), start=self._size):
            self._table["older"][at] = self._newest.get(key, -1)
            self._newest[key] = at
        self._size = end

    def find(self, keys: Sequence[bytes]) -> Ints:
        """(N,) entry numbers, -1 where nothing is stored."""
        find = self._newest.get
        return np.fromiter((find(key, -1) for key in keys), np.int64, len(keys))

    def entries(self, numbers: Ints) -> NDArray[Any]:
        """(N,) a copy of these ENTRYs."""
        return self._table[numbers]

    def accept(self, numbers: Ints) -> None:
        """The data of these entries was checked."""
        self._table["sound"][numbers] = True

    def drop(self, key: bytes, number: int) -> None:
        """Forget this entry; an older copy of the same item, where there is one, takes its place."""
        if self._newest.get(key) == number:
            older = int(self._table["older"][number])
            if older < 0:
                del self._newest[key]
            else:
                self._newest[key] = older


class Shelf:
    """Ragged items of one kind, each ``(rows, *width)``, found by content; made by ``Store.shelf``.

    What other processes add is seen as soon as a key is asked for that is not known yet. Every item is checked against its checksum
    when this shelf first uses it; a damaged one counts as missing (``damaged`` says how many). When nothing more can be written, what
    is put is kept in memory instead, so that ``put`` then ``get`` always works. To be used by one thread at a time.
    """

    def __init__(self, folder: Path, width: tuple[int, ...], dtype: torch.dtype, *, about: Mapping[str, Any], room: Room) -> None:
        self.folder, self.width, self.dtype, self.damaged = folder, width, dtype, 0
        self._about, self._room = about, room
        self._row_bytes = int(np.prod(width, dtype=np.int64)) * dtype.itemsize
        if self._row_bytes <= 0:
            raise ValueError(f"a row of width {width} holds nothing")
        self._catalogue = Catalogue()
        self._files: dict[str, int] = {}  # an entry holds the number of its file
        self._names: list[str] = []  # of files, by number
        self._read: dict[str, int] = {}  # bytes of each index that are in the catalogue
        self._mapped: OrderedDict[int, MappedData] = OrderedDict()  # least recently used first
        self._kept: dict[int, Rows] = {}  # what could not be written
        self._touched_bytes = 0
        self._writer: PairWriter | None = None

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the items that must be computed: not stored, or damaged. A key that occurs twice is named once."""
        numbers = self._locate(keys)
        first = {keys[at]: at for at in reversed(np.flatnonzero(numbers < 0).tolist())}
        return sorted(first.values())

    def put(self, keys: Sequence[bytes], values: Sequence[torch.Tensor]) -> None:
        """Store items, each ``(rows, *width)`` and on any device. One batch is readable as a whole as soon as this returns.

        Raises:
            ValueError: A key, a shape or a dtype that does not belong here.
        """
        fresh: dict[bytes, torch.Tensor] = {}
        for key, number, value in zip(keys, self._locate(keys, refresh=False).tolist(), values, strict=True):
            if len(key) != KEY_BYTES or value.shape[1:] != self.width or value.dtype != self.dtype or not value.ndim:
                raise ValueError(
                    f"expected {KEY_BYTES} bytes and (rows, *{self.width}) {self.dtype}, not {key!r}, {value.shape} {value.dtype}"
                )
            if number < 0:
                fresh.setdefault(key, value)
        if not fresh:
            return
        counts = [len(value) for value in fresh.values()]
        data = self._as_rows(torch.cat(list(fresh.values())).detach().cpu())  # (sum of rows,)
        try:
            self._append(list(fresh), counts, data)
        except OSError as problem:
            self._room.stop(problem)
            self._close_writer()
            self._keep(list(fresh), counts, data)

    def rows(self, keys: Sequence[bytes]) -> Ints:
        """(N,) the number of rows of each item.

        Raises:
            KeyError: This key is not stored, or damaged.
        """
        return self._catalogue.entries(self._present(keys))["rows"]

    def get(self, keys: Sequence[bytes]) -> list[torch.Tensor]:
        """The items, each ``(rows, *width)``: copies, views of one tensor that holds the whole batch.

        Raises:
            KeyError: This key is not stored, or damaged.
        """
        packed, counts = self._packed(keys)
        return list(torch.split(packed, counts.tolist()))

    def gather(self, keys: Sequence[bytes]) -> torch.Tensor:
        """Items of one row each as one tensor ``(N, *width)``.

        Raises:
            KeyError: This key is not stored, or damaged.
            ValueError: An item has more rows than one, or none.
        """
        packed, counts = self._packed(keys)
        if (counts != 1).any():
            raise ValueError(f"gather is for items of one row; {int((counts != 1).sum())} of {len(keys)} have another number")
        return packed

    def close(self) -> None:
        """Finish the pair being written and let go of all files; the shelf can be used again."""
        self._close_writer()
        self._mapped.clear()

    def _as_rows(self, packed: torch.Tensor) -> Rows:
        """The same memory as rows of bytes: numpy has no bfloat16."""
        return packed.view(torch.uint8).numpy().reshape(-1).view(f"V{self._row_bytes}")

    def _present(self, keys: Sequence[bytes]) -> Ints:
        numbers = self._locate(keys)
        absent = np.flatnonzero(numbers < 0)
        if len(absent):
            raise KeyError(keys[int(absent[0])])
        return numbers

    def _packed(self, keys: Sequence[bytes]) -> tuple[torch.Tensor, Ints]:
        entries = self._catalogue.entries(self._present(keys))
        counts: Ints = entries["rows"]
        target_start = np.cumsum(counts) - counts
        packed = torch.empty((int(counts.sum()), *self.width), dtype=self.dtype)
        target = self._as_rows(packed)
        for file, here in _by_file(entries):
            source = _spread(entries["start"][here], counts[here])
            target[_spread(target_start[here], counts[here])] = self._data(file, 0)[source]
            self._touch(len(source), len(here))
        return packed, counts

    def _locate(self, keys: Sequence[bytes], *, refresh: bool = True) -> Ints:
        """(N,) numbers of readable, checked entries, -1 where there is none. Their files stay mapped until the next call."""
        while len(self._mapped) > MOST_MAPPINGS:
            self._mapped.popitem(last=False)
        numbers = self._catalogue.find(keys)
        if refresh and (numbers < 0).any():
            self._refresh()
            numbers = self._catalogue.find(keys)
        while len(bad := self._unreadable(np.unique(numbers[numbers >= 0]))):
            for at in np.flatnonzero(np.isin(numbers, bad)).tolist():
                self._catalogue.drop(keys[at], int(numbers[at]))
            numbers = self._catalogue.find(keys)
        return numbers

    def _refresh(self) -> None:
        """Enter what others have added since the last time."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as files:
            for entry in files:
                name, suffix = os.path.splitext(entry.name)
                if suffix != ".index":
                    continue
                with contextlib.suppress(OSError):  # deleted meanwhile
                    done = self._read.get(name, 0)
                    if entry.stat().st_size <= done:
                        continue
                    records, self._read[name] = read_index(self.folder / entry.name, start=done)
                    if len(records):
                        self._catalogue.add(self._number(name), records, sound=False)

    def _number(self, name: str) -> int:
        if name not in self._files:
            self._files[name] = len(self._names)
            self._names.append(name)
        return self._files[name]

    def _unreadable(self, numbers: Ints) -> Ints:
        """Those of ``numbers`` whose file is gone or whose data is not what was written."""
        bad: list[Ints] = []
        entries = self._catalogue.entries(numbers)
        for file, here in _by_file(entries):
            try:
                data = self._data(file, int((entries["start"][here] + entries["rows"][here]).max()))
            except OSError:
                bad.append(numbers[here])
                continue
            unchecked = here[~entries["sound"][here]]
            sound = self._check(data, entries[unchecked])
            self._catalogue.accept(numbers[unchecked[sound]])
            bad.append(numbers[unchecked[~sound]])
        return np.concatenate(bad) if bad else numbers[:0]

    def _check(self, data: Rows, entries: NDArray[Any]) -> NDArray[np.bool_]:
        """(N,) whether the items at these ENTRYs match their checksums."""
        starts, ends = entries["start"], entries["start"] + entries["rows"]
        crcs = [zlib.crc32(data[start:end].data) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        sound = (np.array(crcs, np.uint32) == entries["crc"]) & (ends <= len(data))
        self.damaged += int((~sound).sum())
        self._touch(int(entries["rows"].sum()), len(entries))
        return np.asarray(sound, np.bool_)

    def _data(self, file: int, n_rows: int) -> Rows:
        """The rows of a file, mapped anew when it has grown since; OSError when it is gone."""
        if file in self._kept:
            return self._kept[file]
        known = self._mapped.get(file)
        if known is None or len(known.rows) < n_rows:
            own = self._writer if self._writer and self._writer.name == self._names[file] else None
            known = map_pair(self.folder / f"{self._names[file]}.data", self._row_bytes, writer=own)
        self._mapped[file] = known
        self._mapped.move_to_end(file)
        return known.rows

    def _touch(self, n_rows: int, n_items: int) -> None:
        """Keep the part of the mapped files that is resident small, however many examples there are."""
        self._touched_bytes += n_rows * self._row_bytes + n_items * FAULT_BYTES
        if self._touched_bytes > MOST_RESIDENT_BYTES:
            self._touched_bytes = 0
            for mapping in self._mapped.values():
                mapping.release()

    def _append(self, keys: Sequence[bytes], counts: Sequence[int], data: Rows) -> None:
        writer = self._writer_with_room(data.nbytes + len(keys) * RECORD.itemsize)
        records = writer.append(keys, counts, data)
        self._read[writer.name] = self._read.get(writer.name, 0) + records.nbytes
        self._catalogue.add(self._number(writer.name), records, sound=True)

    def _writer_with_room(self, size: int) -> PairWriter:
        writer = self._writer
        # a forked child must not append to its parent's files
        if writer is not None and writer.process == os.getpid() and writer.size + size <= self._room.pair_bytes:
            return writer
        self._close_writer()
        self._room.reserve(max(size, self._room.pair_bytes))
        self.folder.mkdir(parents=True, exist_ok=True)
        _describe(self.folder / "about.json", self._about)
        self._writer = PairWriter(self.folder)
        return self._writer

    def _close_writer(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._data(self._number(self._writer.name), self._writer.rows)  # mapped, so that this run's own pairs are not evicted
            self._writer.close()
            self._writer = None

    def _keep(self, keys: Sequence[bytes], counts: Sequence[int], data: Rows) -> None:
        file = self._number(f"memory {len(self._kept)}")
        self._kept[file] = data
        records = np.zeros(len(keys), [("key", f"V{KEY_BYTES}"), ("start", "i8"), ("rows", "i8"), ("data_crc", "u4")])
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["start"], records["rows"] = np.cumsum(counts) - counts, counts
        self._catalogue.add(file, records, sound=True)


def _spread(starts: Ints, counts: Ints) -> Ints:
    """The row numbers ``start, start + 1, ...`` of items of ``counts`` rows each, one item after another: (sum of counts,)."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _by_file(entries: NDArray[Any]) -> Iterator[tuple[int, Ints]]:
    """Each file that these ENTRYs lie in, with the positions of its entries."""
    order = np.argsort(entries["file"], kind="stable")
    files, first = np.unique(entries["file"][order], return_index=True)
    yield from zip(files.tolist(), np.split(order, first[1:]), strict=False)


def _describe(path: Path, about: Mapping[str, Any]) -> None:
    if not path.exists():
        draft = path.with_suffix(f".{uuid.uuid4().hex}")
        draft.write_text(json.dumps(about, indent=1), encoding="utf-8")
        draft.replace(path)
