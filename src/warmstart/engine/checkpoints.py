"""Where a long training run can go on after a kill: tensors and numbers, published as a whole, the last few kept.

    step-<phase>-<step>.safetensors    the tensors
    step-<phase>-<step>.json           the numbers, and the hash of the tensors; written last

A pair without its second file, or whose hash does not match, is no checkpoint. Nothing is deleted before its successor is whole, so a
full disk leaves the last good one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from warmstart.core.errors import DamagedModel
from warmstart.engine import store


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` by name, and ``numbers`` as JSON keeps them (floats come back to the bit)."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run; ``keep`` of them stay."""

    folder: Path
    keep: int = 2

    def write(self, phase: int, step: int, *, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Publish a checkpoint, then delete what is older than the last ``keep``.

        Raises:
            DiskFull: No space left; the checkpoints so far stay.
        """
        path = self.folder / f"step-{phase:02d}-{step:09d}.safetensors"
        store.write_tensors(path, tensors)
        store.write_json(path.with_suffix(".json"), {"numbers": dict(numbers), "blake2b": _hash(path)})
        for old in self._names()[: -self.keep]:
            for suffix in (".json", ".safetensors"):  # the numbers first: half a pair is no checkpoint
                (self.folder / f"{old}{suffix}").unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """The last checkpoint that is whole; None where there is none."""
        for name in reversed(self._names()):
            path = self.folder / f"{name}.safetensors"
            with suppress(OSError, ValueError, KeyError, DamagedModel):
                about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                if about["blake2b"] == _hash(path):
                    return Checkpoint(store.read_tensors(path), about["numbers"])
        return None

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("step-*.json"))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
