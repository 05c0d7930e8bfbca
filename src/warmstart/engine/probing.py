"""How much a body knows of the labels at hand: a linear probe on its pooled states, quick enough to be asked again and again."""

from __future__ import annotations

from torch import Tensor

from warmstart.engine import linear

STRENGTH = 1e-3
"""Of the probe's penalty: fixed, so that curves over time compare states and not penalties."""


def right(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], n_classes: int) -> Tensor:
    """Which held-out examples (M,) a linear probe on states (N, D) with classes (N,) names rightly."""
    head = linear.fit(train[0], train[1], link="softmax", n_classes=n_classes, strength=STRENGTH)
    return head.logits(held[0]).argmax(1) == held[1]
