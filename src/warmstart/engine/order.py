"""Which rows a step of training sees: every pass is a new permutation, and nothing but the seed and the number of the step decides."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL = 16
"""Batches whose rows are sorted by length together."""


class Order:
    """Rows of each step, drawn without replacement within a pass; the last, smaller batch of a pass is left out.

    Args:
        n: How many rows there are.
        batch: Rows of a step, over all processes; cut down to ``n``.
        seed: Another seed gives other permutations.
        rank: Which of ``world`` processes this is; it gets every ``world``-th row of the batch.
        world: How many processes there are.
    """

    def __init__(self, n: int, batch: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.batch = n, min(batch, n)
        self.per_pass = n // self.batch
        self._seed, self._rank, self._world = seed, rank, world
        self._pass, self._rows = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """This process's rows of step ``step`` (counted from 0): (B,) int64."""
        which, place = divmod(step, self.per_pass)
        if which != self._pass:
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + which) % 2**63)
            self._pass, self._rows = which, torch.randperm(self.n, generator=generator)
        return self._rows[place * self.batch : (place + 1) * self.batch][self._rank :: self._world]


class ByLength:
    """Rows of each step where they differ in length: of each ``POOL`` batches of a pass, those of like length together.

    Args:
        train: The rows to draw from, (N,).
        lengths: Of all rows, by row.
        batch: Rows of a step, over all processes; at most N.
        seed: Another seed gives other permutations.
    """

    def __init__(self, train: NDArray[np.int64], lengths: NDArray[np.int64], batch: int, *, seed: int) -> None:
        self._train, self._lengths, self._batch, self._seed = train, lengths, batch, seed
        self._pass, self._order = -1, np.zeros((0, 0), np.int64)

    def __call__(self, step: int) -> Tensor:
        """Rows of the whole batch of a step, (B,)."""
        size = self._batch
        per_pass = len(self._train) // size
        which, place = divmod(step, per_pass)
        if which != self._pass:
            random = np.random.default_rng((self._seed, which))
            order = random.permutation(self._train)[: per_pass * size]
            pools = [order[i : i + POOL * size] for i in range(0, len(order), POOL * size)]
            lined = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools])
            self._pass, self._order = which, lined.reshape(per_pass, size)[random.permutation(per_pass)]
        return torch.from_numpy(self._order[place])
