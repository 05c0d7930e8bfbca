"""How much a body knows of the labels at hand: a linear probe on its pooled states, quick enough to be asked again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from warmstart.engine import linear

STRENGTH = 1e-3
"""Of the probe's penalty: fixed, so that curves over time compare states and not penalties."""

ROWS = 512
"""Rows that a probe during training learns from, and rows that it is asked about."""


def states(embed: Callable[[int, int], Tensor], n: int, *, at_once: int = 256) -> Tensor:
    """``embed(start, stop)`` for all ``n`` examples, a few at once: (n, D) in float32."""
    return torch.cat([embed(start, min(n, start + at_once)).float() for start in range(0, n, at_once)])


def right(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], n_classes: int, *, seed: int = 0) -> Tensor:
    """Which held-out examples (M,) a linear probe on states (N, D) with classes (N,) names rightly."""
    head = linear.fit(train[0], train[1].cpu(), link="softmax", n_classes=n_classes, strength=STRENGTH, seed=seed)
    return head.logits(held[0]).argmax(1) == held[1].to(held[0].device)


def decayed(modules: Sequence[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that weight decay is for (matrices and kernels), and the others (biases, scales of norms)."""
    parameters = [p for module in modules for p in module.parameters()]
    return [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
