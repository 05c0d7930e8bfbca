"""What the ladder hands to a rung, and what it gets back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.protocols import Predictor
from warmstart.engine import store
from warmstart.engine.clock import Pace, replans


@dataclass(frozen=True)
class Plan:
    """What one fit shall do: ``settings`` are plain JSON values that, with the seed, decide every bit of the result.

    ``seconds``: of one fit, with its share of what several need together (``Workbench.fits``); ``once`` are the seconds of all that,
    which the first one takes. ``shortened``: there was no time for what the strategy would have liked to do.
    """

    settings: dict[str, Any]
    seconds: float
    shortened: bool = False
    once: float = 0.0


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

    @property
    def replans(self) -> dict[str, list[tuple[int, int]]]:
        """Where training was shortened or lengthened: that of the fit under its name, that of a part under ``name.part``."""
        parts = {f"{self.name}.{part}": found for part, found in self.pace.parts.items() if found}
        return {self.name: self.pace.replans, **parts}

    @contextmanager
    def part(self, name: str, *, share: float = 1.0) -> Iterator[Pace]:
        """How something keeps time that is trained before the rest of the fit, within this ``share`` of the time left.

        Where it was shortened is recorded with the fit, and followed by a run of the same recipe, and by one that resumes this fit.
        """
        path = None if self.folder is None else self.folder / f"{self.name}.{name}.json"
        left = {} if path is None or self.pace.follow else store.read_object(path)
        known = replans(left)[name] if left else self.pace.parts.get(name, [])
        pace = Pace(max(0.0, self.pace.left() * share), list(known), self.pace.follow or bool(left))
        yield pace
        self.pace.parts[name] = pace.replans
        if path is not None and not pace.follow:
            store.write_json(path, {name: pace.replans})


@dataclass(frozen=True)
class Fitted:
    """A rung's result: ``held_logits (M, C)`` for the held rows, in their order; ``trainable`` counts parameters that moved."""

    predictor: Predictor
    held_logits: NDArray[np.float32]
    trainable: int
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
