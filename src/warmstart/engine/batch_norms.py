"""Batch normalisation of a body that moves to data far from its own: by the statistics of each batch while it learns, then by those of the
data that it learned from.

Kept statistics describe the data of pre-training. Where the new data differ, a moving body spends its steps on making up for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LEAST_ROWS = 8
"""Statistics of fewer rows are too rough to learn by."""

ENOUGH_ROWS = 1_000
"""Rows that the final statistics are taken from."""


def among(body: nn.Module, trained: Iterable[nn.Parameter] | None = None) -> list[_BatchNorm]:
    """The layers that normalise by kept statistics; those whose own scale is ``trained``, where that is given."""
    found = [m for m in body.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.affine]
    moving = None if trained is None else {id(p) for p in trained}
    return [m for m in found if moving is None or id(m.weight) in moving]


@contextmanager
def by_batch(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within the block these layers normalise by the statistics of the batch, and compute them in float32 whatever the body computes in."""
    for layer in layers:
        layer.float().train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


@torch.no_grad()
def estimate(layers: Sequence[_BatchNorm], pass_over: Callable[[NDArray[np.int64]], object], stream: Sequence[NDArray[np.int64]]) -> None:
    """Keep the mean of the statistics of the last batches of ``stream``, as the weights are now (Wu & Johnson 2021, section 3).

    ``pass_over`` sends a batch through the body.
    """
    usual, before = [layer.momentum for layer in layers], [{n: b.clone() for n, b in layer.named_buffers()} for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
    rows = 0
    with by_batch(layers):
        for batch in reversed(stream):
            if rows < ENOUGH_ROWS:
                pass_over(batch)
                rows += len(batch)
    for layer, momentum, own in zip(layers, usual, before, strict=True):
        layer.momentum = momentum
        if not layer.num_batches_tracked:  # the outputs do not pass through it
            layer.load_state_dict(own, strict=False)


def hand_over(layers: Sequence[_BatchNorm], others: Sequence[_BatchNorm]) -> None:
    """Give the kept statistics of ``layers`` to the ``others``."""
    for layer, other in zip(layers, others, strict=True):
        other.load_state_dict(dict(layer.named_buffers()), strict=False)
