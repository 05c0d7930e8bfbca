"""One rung of a climb: what was planned for it, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import WarmstartError
from warmstart.core.protocols import Strategy


class Fit(NamedTuple):
    """Seconds of one fit, as predicted and as measured."""

    predicted: float
    measured: float


@dataclass
class Step:
    """One rung as climbed, or passed over (``folds`` is 0 and ``note`` says why).

    ``logits`` are those of the held rows of the first ``folds`` splits, one after another. Of the ``predicted`` seconds the first fit takes
    ``once`` for all of them. ``replans`` holds, per fit, where training was shortened.
    """

    label: str
    strategy: Strategy
    settings: dict[str, Any] = field(default_factory=dict)
    folds: int = 0
    predicted: float = 0.0
    seconds: float = 0.0
    trainable: int = 0
    note: str = ""
    error: WarmstartError | None = None
    once: float = 0.0
    replans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None

    @property
    def own(self) -> Fit:
        """One fit without what the first one does for all, ``once``, which a further one need not do again."""
        predicted = max(0.0, self.predicted - self.once)
        share = predicted / self.predicted if self.predicted else 1.0
        return Fit(predicted / self.folds, self.seconds * share / self.folds)

    def shorten(self, folds: int) -> None:
        """Fewer fits than were planned."""
        self.predicted, self.folds = self.once + self.own.predicted * folds, folds

    def record(self) -> dict[str, Any]:
        """What decides this rung's bits, for ``recipe.json``."""
        return {"label": self.label, "settings": self.settings, "folds": self.folds, "replans": self.replans}
