"""Which rows a step of training sees: every pass is a new permutation, and nothing but the seed and the number of the step decides."""

from __future__ import annotations

import torch
from torch import Tensor


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
