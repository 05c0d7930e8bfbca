"""What the stage of pre-training hands to an objective, and what an objective hands to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What an objective is asked to do.

    ``data`` and ``validation`` are paths or objects. ``start`` is the folder of a body to go on from. ``size`` and ``seconds`` are the
    dial: a named size, and the time that may be spent from now on (None: as long as the size asks for). ``settings`` are those that an
    earlier run of the same recipe resolved (empty: decide now): with them nothing is measured, and the learner is the same.
    ``folder`` is where files that a resumed run needs may be written, such as memory-mapped tokens.
    """

    data: Any
    folder: Path
    validation: Any = None
    column: Mapping[str, str] = field(default_factory=dict)
    skip_bad: bool = False
    start: Path | None = None
    size: Literal["tiny", "small", "base"] | None = None
    seconds: float | None = None
    modality_options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: torch.dtype = torch.float32
    seed: int = 0
    rank: int = 0
    world: int = 1
    quiet: bool = True


@dataclass(frozen=True)
class Group:
    """Parameters that share an optimiser and a learning rate, by ``kind``:

    ``adamw`` (Loshchilov & Hutter 2019), ``muon`` (Jordan et al. 2024; matrices alone), ``sgd`` with ``momentum``.
    """

    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float = 0.0
    kind: Literal["adamw", "muon", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.95


@dataclass(frozen=True)
class Phase:
    """One stretch of training with its own parameters. Most objectives have one; a deep belief network has one for each layer.

    The learning rate rises linearly over the first ``warmup`` of the steps, stays, and falls over the last ``cooldown`` of them by
    ``decay`` to ``floor`` times its peak; ``cooldown = 1 - warmup`` falls all the way, 0 never. Within a budget a phase whose steps
    turn out quicker than planned may go on to ``most`` steps.
    """

    name: str
    steps: int
    warmup: float = 0.02
    cooldown: float = 0.98
    decay: Literal["linear", "cosine"] = "linear"
    floor: float = 0.0
    clip: float | None = 1.0
    most: int = 0


@dataclass(frozen=True)
class Plan:
    """What is printed before training starts. ``count`` items of ``unit`` ("tokens", "images") will be seen in ``steps`` steps."""

    parameters: int
    steps: int
    unit: str
    count: int
    seconds: float
    memory_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Something to look at in the report: grey or RGB ``pixels (H, W)`` or ``(H, W, 3)`` from 0 to 1, with what it shows in one line."""

    title: str
    pixels: Tensor


@dataclass(frozen=True)
class Corpus:
    """What was read, for the report and the card: ``items`` maps a noun to a number ({"documents": 812, "tokens": 213886})."""

    source: str
    hash: str
    items: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, *, split: bool) -> int:
        """Documents, images or recordings, whichever come first among ``items``; ``split``: the held-out ones are of the same source."""
        noun = next(iter(self.items), "")
        return self.items.get(noun, 0) + (self.items.get(f"held-out {noun}", 0) if split else 0)
