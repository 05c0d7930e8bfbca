"""Answers of structured tasks in compact form: arrays (N, L, ...) whose second axis differs between batches and is padded with -1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core.structured import StructuredTask

PADDING = -1


@dataclass
class Files:
    """A folder for answers that are files, and the names that are taken: ``name`` gives one for each input, in order."""

    folder: Path
    taken: set[str] = field(default_factory=set)
    count: int = 0

    def name(self, source: str) -> str:
        """After the file that the input came from, or its number."""
        self.count += 1
        stem = Path(source).stem[:100] if "." in source else f"{self.count:05}"
        found = stem if stem not in self.taken else f"{stem}-{self.count}"
        self.taken.add(found)
        return found


def is_structured(task: Any) -> bool:
    """Whether a task's answers are more than one row of logits."""
    return bool(getattr(task, "structured", False))


def structured(task: Any) -> StructuredTask:
    """The same task, as what ``is_structured`` has found it to be."""
    found: StructuredTask = task
    return found


def probabilities(task: Any, logits: NDArray[Any]) -> NDArray[Any]:
    """What a task's scores, metrics and decoding take: probabilities (N, C), or the compact answers as they are."""
    found: NDArray[Any] = logits if is_structured(task) else task.probabilities(logits)
    return found


def joined(parts: Sequence[NDArray[Any]], order: Sequence[NDArray[np.int64]] | None = None) -> NDArray[Any]:
    """Answers of several batches in one array; ``order`` says where each row belongs (None: as they come)."""
    if not parts:
        return np.zeros((0, 1), np.float32)
    longest = max(part.shape[1] for part in parts)
    rest = [(0, 0)] * (parts[0].ndim - 2)
    padded = [np.pad(part, [(0, 0), (0, longest - part.shape[1]), *rest], constant_values=PADDING) for part in parts]
    whole = np.concatenate(padded)
    if order is None:
        return whole
    out = np.empty_like(whole)
    out[np.concatenate(order)] = whole
    return out


def loss(task: Any, head: Any, outputs: Tensor, targets: Sequence[Any], smoothing: float) -> Tensor:
    """The loss of raw outputs: the head's own, or the task's."""
    found: Tensor = (head if hasattr(head, "loss") else task).loss(outputs, targets, smoothing)
    return found


def compact(task: Any, head: Any, outputs: Tensor) -> NDArray[Any]:
    """What is kept of raw outputs, as the head says, or the task."""
    found: NDArray[Any] = (head if hasattr(head, "compact") else task).compact(outputs)
    return found
