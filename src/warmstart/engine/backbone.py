"""A pre-trained body on this machine: its weights, its trunk, and which cuts of it have proved themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from warmstart.core import registry
from warmstart.core.card import licence
from warmstart.core.errors import BackboneNotFound, nearest
from warmstart.engine import bodies, cut, packed, store


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

    @cached_property
    def convolutional(self) -> bool:
        """Whether blocks of the trunk, or parts of a body without one, hold convolutions."""
        blocks = [self.model] if self.trunk is None else self.trunk.blocks
        return any(p.ndim > 2 for block in blocks for p in block.parameters())

    @property
    def precision(self) -> torch.dtype:
        """The type the frozen body computes in."""
        return next((p.dtype for p in self.frozen.parameters()), torch.float32)

    def prove(self, point: int, batch: cut.Batch) -> cut.Proof:
        """Prove once, in float32 and on the user's data, that prefix + tail at ``point`` equals the whole body."""
        if point not in self.proofs:
            self.proofs[point] = cut.prove(self.model, self.trunk, batch, point)
        return self.proofs[point]


def find(name: str, options: Mapping[str, Any] | None = None) -> tuple[str, Path]:
    """The folder that a backbone's name means: asked of every source in turn.

    Args:
        name: A name, a folder, a file or a hub id.
        options: Of the source that has it.

    Raises:
        BackboneNotFound: No source has it.
        BadOption: An option that its source does not have.
    """
    known: list[str] = []
    for source, described in sorted(registry.parts("backbones").items(), key=lambda item: _last_resort(item[0])):
        owned = {option.name for option in described.options}
        part = registry.create("backbones", source, options={k: v for k, v in (options or {}).items() if k in owned})
        folder = part.find(name)
        if folder is not None:
            registry.create("backbones", source, options=options)  # complains of those it does not have
            return name, folder
        known += part.known()
    raise BackboneNotFound(
        f"no backbone {name!r} here.{nearest(name, known)}",
        f"one of {', '.join(known)}, a folder, or a hub id such as org/name",
        "see: warmstart models",
    )


def load(name: str, *, device: torch.device, precision: torch.dtype, options: Mapping[str, Any] | None = None) -> Backbone:
    """Open a backbone by name, folder, file or hub id; ``options`` are those of its source.

    Raises:
        BackboneNotFound: It is not here, or cannot be opened safely.
    """
    name, folder = find(name, options)
    model = store.load_body(folder).to(device)
    sealed = precision == torch.float32 or isinstance(model, bodies.Sealed)
    frozen = model if sealed else packed.prepare(copy.deepcopy(model).to(precision))
    for parameter in frozen.parameters():
        if frozen is not model:
            parameter.requires_grad_(False)
    return Backbone(name, folder, store.fingerprint(folder), licence(folder), model, frozen, cut.find_trunk(model))


def _last_resort(source: str) -> tuple[int, str]:
    """Folders after what has a name of its own, and the hub last: it may ask the network."""
    return {"hub": 2, "local": 1}.get(source, 0), source
