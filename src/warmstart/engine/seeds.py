"""Random numbers that follow from a seed and a purpose alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, step: int, purpose: int) -> torch.Generator:
    """Random numbers of a step for one purpose (0 to 15), the same in all processes."""
    return torch.Generator().manual_seed(((seed + 1) * 0x9E3779B1 + step * 16 + purpose) % 2**63)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's global generator (of the CPU) starts from this seed; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
