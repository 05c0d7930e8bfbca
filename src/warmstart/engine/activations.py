"""The activation store: what frozen layers gave for an example is computed once, ever.

A root folder holds one shelf for each Key; in a shelf an item is found by the hash of the example it came from. Any number of processes
may read and write at once, and all of them may be killed at any moment. Nothing in it is trusted without its checksum, nothing is
unpickled, and nothing that goes wrong here fails a run: it goes on without being cached.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from warmstart.core.errors import BadOption
from warmstart.engine.pairs import Pair, list_pairs
from warmstart.engine.shelf import Shelf

FORMAT = 2  # of the files; another number makes other shelves
PAIR_BYTES = 64 * 2**20  # eviction takes a whole pair of files
MOST_BYTES = 20 * 2**30


@dataclass(frozen=True)
class Key:
    """What stored activations depend on, apart from the example itself.

    ``backbone`` is the fingerprint of weights and config, ``what`` says which states are kept ("pooled", "cut3"), ``precision`` the
    arithmetic that made them, and ``preprocessing`` is the fingerprint of what turns an example into a batch.
    """

    backbone: str
    what: str
    precision: str
    preprocessing: str

    @property
    def digest(self) -> str:
        """32 hexadecimal digits."""
        return content_key(json.dumps([FORMAT, self.backbone, self.what, self.precision, self.preprocessing]).encode()).hex()


@dataclass(frozen=True)
class ShelfUsage:
    """One shelf as ``warmstart cache`` shows it; ``last_used`` is in seconds since 1970, 0 where nothing is left."""

    digest: str
    about: dict[str, Any]
    bytes: int
    examples: int
    last_used: float


def content_key(content: bytes) -> bytes:
    """The 16 bytes by which an example is found again (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(content, digest_size=16).digest()


def default_root() -> Path:
    """``$WARMSTART_CACHE/activations``, else ``warmstart/activations`` in the user's cache folder."""
    if own := os.environ.get("WARMSTART_CACHE"):
        return Path(own).expanduser() / "activations"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "warmstart" / "activations"


class Store:
    """All shelves under one root, bounded in bytes together.

    ``limit_bytes`` overrides the limit that ``set_limit`` has written down. The bound holds up to the one pair of files (an eighth of
    the limit, 64 MiB at most) that each open shelf is writing. What was used longest ago is deleted first, never what some process is
    using. ``warnings`` says why nothing more is stored, when that happens (``full``).
    """

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.warnings: list[str] = []
        self._room = _Room(self.root, limit_bytes, self.warnings)

    @property
    def full(self) -> bool:
        """Nothing more is stored in this run: what is put from now on is kept in memory."""
        return bool(self.warnings)

    @property
    def limit(self) -> int:
        """Bytes that all shelves may take: as set, else 20 GiB, or a tenth of what the disk has for us where that is less."""
        return self._room.limit

    def set_limit(self, limit_bytes: int) -> None:
        """Write the limit down for all later runs, and delete what is over it.

        Raises:
            BadOption: The limit is negative.
        """
        if limit_bytes < 0:
            raise BadOption(f"a limit of {limit_bytes} bytes", "0 or more", "give the bytes that stored activations may take")
        self.root.mkdir(parents=True, exist_ok=True)
        draft = self.root / f"limit.{uuid.uuid4().hex}"
        draft.write_text(json.dumps({"limit_bytes": limit_bytes}), encoding="utf-8")
        draft.replace(self.root / "limit.json")
        self._room.limit = limit_bytes
        self._room.evict(0)

    def shelf(self, key: Key, width: tuple[int, ...] | int, dtype: torch.dtype) -> Shelf:
        """The shelf of items ``(rows, *width)``: ``rows`` is 1 for pooled states, T for tokens. Nothing is written until the first put."""
        width = (width,) if isinstance(width, int) else tuple(width)
        kind = str(dtype).removeprefix("torch.")
        # width and dtype are in the name, so that bytes can never be read as something else
        folder = self.root / "-".join([key.digest, kind, "x".join(map(str, width))])
        return Shelf(folder, width, dtype, about={**asdict(key), "width": width, "dtype": kind}, room=self._room)

    def usage(self) -> list[ShelfUsage]:
        """What is stored, most recently used first."""
        found = [_usage(folder) for folder in _shelf_folders(self.root)]
        return sorted(found, key=lambda usage: -usage.last_used)

    def clear(self) -> int:
        """Delete everything that no process is using; gives the bytes freed."""
        freed = 0
        for folder in _shelf_folders(self.root):
            freed += sum(pair.size for pair in list_pairs(folder) if pair.delete())
            if not list_pairs(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return freed


class _Room:
    """The bound on all shelves together, and whether anything can be written at all."""

    def __init__(self, root: Path, limit_bytes: int | None, warnings: list[str]) -> None:
        self.root, self.warnings = root, warnings
        if limit_bytes is not None:
            self.limit = limit_bytes

    @cached_property
    def limit(self) -> int:
        written = _json(self.root / "limit.json").get("limit_bytes")
        if isinstance(written, int):
            return written
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        # what the store holds counts as free, or the limit would shrink while the store fills
        return min(MOST_BYTES, (shutil.disk_usage(there).free + sum(pair.size for pair in self._pairs())) // 10)

    @property
    def pair_bytes(self) -> int:
        return min(PAIR_BYTES, self.limit // 8)

    def reserve(self, size: int) -> None:
        if self.warnings or self.evict(size) > self.limit:
            raise OSError(errno.EDQUOT, "the limit is reached, and all that is stored is in use")

    def evict(self, size: int) -> int:
        """Delete until ``size`` more bytes fit, as far as possible; gives the bytes that there would then be."""
        pairs, limit = self._pairs(), self.limit
        total = size + sum(pair.size for pair in pairs)
        for pair in sorted(pairs, key=lambda pair: pair.used):
            if total <= limit:
                break
            if pair.size and pair.delete():  # an empty one is just being made
                total -= pair.size
        return total

    def stop(self, problem: OSError) -> None:
        if not self.warnings:
            self.warnings.append(
                f"activations are no longer stored in {self.root} ({problem.strerror or problem}); this run keeps them in memory. "
                "Free some space or set another limit: warmstart cache"
            )

    def _pairs(self) -> list[Pair]:
        return [pair for folder in _shelf_folders(self.root) for pair in list_pairs(folder)]


def _usage(folder: Path) -> ShelfUsage:
    pairs = list_pairs(folder)
    last_used = max((pair.used for pair in pairs), default=0.0)
    sizes = sum(pair.size for pair in pairs), sum(pair.records for pair in pairs)
    return ShelfUsage(folder.name, _json(folder / "about.json"), *sizes, last_used)


def _shelf_folders(root: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder for folder in root.iterdir() if folder.is_dir())
    return []


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when the file is not there or damaged."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}
