"""What the ladder hands to a rung, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.protocols import Predictor
from warmstart.engine.clock import Pace


@dataclass(frozen=True)
class Plan:
    """What one fit shall do: ``settings`` are plain JSON values that, with the seed, decide every bit of the result.

    ``shortened``: there was no time for what the strategy would have liked to do.
    """

    settings: dict[str, Any]
    seconds: float
    shortened: bool = False


@dataclass(frozen=True)
class Job:
    """One fit: its name (``fold0``, ``final``), its plan, how it keeps time, where it may leave checkpoints, and its progress bar."""

    name: str
    settings: dict[str, Any]
    seed: int
    pace: Pace
    folder: Path | None = None
    progress: str | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The file a long training run leaves for a resumed one."""
        return None if self.folder is None else self.folder / f"{self.name}.checkpoint.safetensors"


@dataclass(frozen=True)
class Fitted:
    """A rung's result: ``held_logits (M, C)`` for the held rows, in their order; ``trainable`` counts parameters that moved."""

    predictor: Predictor
    held_logits: NDArray[np.float32]
    trainable: int
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
