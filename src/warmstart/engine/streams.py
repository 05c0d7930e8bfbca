"""What learners need of the data that they learn from: batches by the number of the step, held-out rows, a body, a folder.

Images and texts are streams of their own; what is learned from them is the same. Shapes: B rows of a step over all processes, b this
process's share of them, M held-out rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from warmstart.engine import cut, footprint, network, probing
from warmstart.engine.learner import Corpus, Group, Phase, Picture, Plan, Setting


class Stream(Protocol):
    """The share of one process of every step's batch. ``views`` of a text do not differ: dropout tells them apart."""

    unit: str
    looked_at: int
    """Rows that a validation looks at, and that its probe learns from."""
    setting: Setting
    settings: Mapping[str, Any]
    corpus: Corpus
    names: tuple[str, ...]
    labels: Tensor | None
    held_labels: Tensor | None
    train: Tensor
    n_held: int

    @property
    def bytes(self) -> int: ...

    def rows(self, step: int) -> Tensor: ...

    def views(self, step: int, which: int, *, shift: int = 0) -> dict[str, Tensor]: ...

    def known(self, rows: Tensor) -> dict[str, Tensor]: ...

    def held(self, start: int, stop: int) -> dict[str, Tensor]: ...

    def held_views(self, start: int, stop: int, which: int) -> dict[str, Tensor]: ...

    def body(self) -> nn.Module: ...

    def pictures(self) -> Sequence[Picture]: ...

    def save(self, body: nn.Module, folder: Path) -> None: ...


def pooled(body: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean of the body's last state over its map or its real tokens, as ``adapt`` pools it: (B, D) in float32."""
    state = network.last_state(cut.run(body, batch))
    return network.masked_mean(state, network.state_mask(body, state, batch))


def width(body: nn.Module, stream: Stream) -> int:
    """D of ``pooled``; the body is on the CPU."""
    training = body.training
    with torch.no_grad():
        found = pooled(body.eval(), {name: value.cpu() for name, value in stream.held(0, 1).items()}).shape[1]
    body.train(training)
    return int(found)


def sample(stream: Stream, n: int) -> Tensor:
    """``n`` training rows, always the same."""
    order = torch.randperm(len(stream.train), generator=torch.Generator().manual_seed(stream.setting.seed))
    return stream.train[order[:n]]


def embedded(module: nn.Module, stream: Stream, rows: Tensor, *, at_once: int = 256) -> Tensor:
    """States (n, D) of training rows as they are, in float32 on the CPU; ``module`` has ``embed``."""
    parts = [rows[i : i + at_once] for i in range(0, len(rows), at_once)]
    return torch.cat([module.embed(stream.known(part)).float().cpu() for part in parts])  # type: ignore[operator]


@torch.no_grad()
def probed(module: nn.Module, stream: Stream, labels: tuple[Tensor, Tensor], states: Tensor, *, times: int) -> Tensor:
    """Which of the held-out rows with ``states`` (M, D) a linear probe names rightly, from ``times`` the rows of a validation: (M,) 0 or 1.

    ``labels`` are those of all rows, and of the held-out ones.
    """
    rows = sample(stream, times * stream.looked_at)
    train = embedded(module, stream, rows), labels[0][rows]
    return probing.right(train, (states, labels[1][: len(states)]), len(stream.names)).double()


def one_cycle(name: str, settings: Mapping[str, Any]) -> Phase:
    """The learning rate rises for ``warmup`` of the steps and falls to zero by a cosine (Smith & Topin 2019)."""
    warmup = settings["warmup"]
    return Phase(name, settings["steps"], warmup=warmup, cooldown=1 - warmup, decay="cosine", most=settings.get("most_steps", 0))


def groups(module: nn.Module, settings: Mapping[str, Any]) -> Sequence[Group]:
    """All parameters that take gradients; kernels and matrices decay, biases and scales do not."""
    moved = [p for p in module.parameters() if p.requires_grad]  # Keras keeps running statistics and seeds among its parameters
    decayed, others = [p for p in moved if p.ndim > 1], [p for p in moved if p.ndim <= 1]
    kind, lr = settings["optimizer"], settings["lr"]
    return [
        Group(tuple(decayed), lr, weight_decay=settings["weight_decay"], kind=kind, momentum=0.9),
        Group(tuple(others), lr, kind=kind, momentum=0.9),
    ]


def plan(module: nn.Module, stream: Stream, *, views: int) -> Plan:
    """What will be seen, time as measured, memory as estimated: weights with optimiser, activations and their gradients, the data."""
    settings = stream.settings
    parameters, batch, steps = sum(p.numel() for p in module.parameters()), settings["batch"], settings["steps"]
    one = footprint.numbers(module, lambda: module.embed(stream.held(0, 1)))  # type: ignore[operator]
    memory = 20 * parameters + footprint.PER_NUMBER * views * batch * one + stream.bytes
    return Plan(parameters, steps, stream.unit, steps * batch, steps * settings["seconds_per_step"], memory, tuple(stream.corpus.notes))
