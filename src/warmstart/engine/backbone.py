"""A pre-trained body on this machine: its weights, its trunk, and which cuts of it have proved themselves."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from warmstart.core import registry
from warmstart.core.card import licence
from warmstart.core.errors import BackboneNotFound, nearest
from warmstart.engine import cut, packed, store


@dataclass
class Backbone:
    """``model`` is in float32 and in evaluation mode; ``frozen`` is the same body in the precision that prefixes run in."""

    name: str
    folder: Path
    fingerprint: str
    licence: str
    model: nn.Module
    frozen: nn.Module
    trunk: cut.Trunk | None
    proofs: dict[int, cut.Proof] = field(default_factory=dict)

    @property
    def n_blocks(self) -> int:
        """Blocks of the trunk; 0 for a body without one."""
        return self.trunk.n_blocks if self.trunk is not None else 0

    @cached_property
    def frozen_trunk(self) -> cut.Trunk | None:
        """The trunk of ``frozen``."""
        return cut.find_trunk(self.frozen)

    @property
    def parameters(self) -> int:
        """Number of parameters of the body."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def precision(self) -> torch.dtype:
        """The type the frozen body computes in."""
        return next(self.frozen.parameters()).dtype

    def prove(self, point: int, batch: cut.Batch) -> cut.Proof:
        """Prove once, in float32 and on the user's data, that prefix + tail at ``point`` equals the whole body."""
        if point not in self.proofs:
            self.proofs[point] = cut.prove(self.model, self.trunk, batch, point)
        return self.proofs[point]


def find(name: str) -> tuple[str, Path]:
    """The folder that a backbone's name means: asked of every source in turn.

    Raises:
        BackboneNotFound: No source has it.
    """
    known: list[str] = []
    for source in sorted(registry.parts("backbones"), key=_last_resort):
        part = registry.create("backbones", source)
        folder = part.find(name)
        if folder is not None:
            return name, folder
        known += part.known()
    raise BackboneNotFound(
        f"no backbone {name!r} here.{nearest(name, known)}",
        f"one of {', '.join(known)}, a folder, or a hub id such as org/name",
        "see: warmstart models",
    )


def load(name: str, *, device: torch.device, precision: torch.dtype) -> Backbone:
    """Open a backbone by name, folder or hub id.

    Raises:
        BackboneNotFound: It is not here, or cannot be opened safely.
    """
    name, folder = find(name)
    model = store.load_body(folder).to(device)
    frozen = model if precision == torch.float32 else packed.prepare(copy.deepcopy(model).to(precision))
    for parameter in frozen.parameters():
        if frozen is not model:
            parameter.requires_grad_(False)
    return Backbone(name, folder, store.fingerprint(folder), licence(folder), model, frozen, cut.find_trunk(model))


def _last_resort(source: str) -> tuple[bool, str]:
    """The hub last: it may ask the network."""
    return source == "hub", source
