"""The curves of a training run: rows on disk as they are made, cut back where a run resumes, and TensorBoard events beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BARS = "▁▂▃▄▅▆▇█"


@dataclass
class History:
    """Rows ``{"phase", "step", name: value, ...}``; ``step`` counts over all phases. Training and validation have rows of their own:
    names of the latter begin with ``validation/``.

    ``tensorboard`` is where event files go (None: nowhere); without the package there are none.
    """

    path: Path
    tensorboard: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    _writer: Any = None

    def resume(self, step: int) -> None:
        """Go on after ``step``: later rows, which the run will make again, are cut off."""
        self.rows = []
        with suppress(OSError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # a line that a kill cut short
                    row = json.loads(line)
                    if row["step"] <= step:
                        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self._writer = _events(self.tensorboard, step)

    def add(self, phase: int, step: int, values: Mapping[str, float]) -> None:
        """One more row; values that are not finite are kept as None."""
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        row = {"phase": phase, "step": step, **clean}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in clean.items():
                if value is not None:
                    self._writer.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one name, where it was measured."""
        found = [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return [step for step, _ in found], [value for _, value in found]

    def close(self) -> None:
        """Let go of the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line of text, newest to the right: ``█▆▄▃▂▂▁``."""
    if not values:
        return ""
    size = max(1, math.ceil(len(values) / width))
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _events(folder: Path | None, step: int) -> Any:
    """A writer of TensorBoard events, where its package is installed."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1, flush_secs=10)  # type: ignore[no-untyped-call]
