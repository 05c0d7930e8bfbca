"""Contrasting two views of everything in a batch, over all processes; how good the resulting space is. Shapes: B pairs, D features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from warmstart.core.report import Metric
from warmstart.engine import statistics


def nt_xent(first: Tensor, second: Tensor, *, temperature: float, reduction: str = "mean") -> Tensor:
    """Normalised temperature-scaled cross entropy of ``first (B, D)`` and ``second (B, D)`` (Chen et al. 2020), a mean over 2 B.

    Each view has to be told from the 2 B - 2 views of other rows, as the one that belongs to its partner.
    """
    n = len(first)
    unit = functional.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = unit @ unit.T / temperature  # (2B, 2B)
    similarity.fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * n, device=unit.device).roll(n)
    return functional.cross_entropy(similarity, partners, reduction=reduction)


def info_nce(first: Tensor, second: Tensor, *, temperature: float, reduction: str = "mean") -> Tensor:
    """The loss of SimCSE (Gao et al. 2021, equation 1): each of ``first (B, D)`` has to find its partner among ``second (B, D)``."""
    similarity = functional.normalize(first.float(), dim=1) @ functional.normalize(second.float(), dim=1).T / temperature
    return functional.cross_entropy(similarity, torch.arange(len(first), device=first.device), reduction=reduction)


def gathered(mine: Tensor, *, rank: int, world: int) -> Tensor:
    """Rows (B, D) of all processes from the share (b, D) of each; gradients flow into this process's own.

    All shares must have as many rows. Where every process computes the whole batch's loss from this, the sum over processes of the
    gradients is that of the whole batch.
    """
    if world == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(world)]
    torch.distributed.all_gather(parts, mine.detach().contiguous())
    parts[rank] = mine
    return torch.cat(parts)


class Projection(nn.Module):
    """Two layers between a body and its contrastive loss, thrown away afterwards: what they lose, the body keeps (Chen et al. 2020)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, inputs), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        found: Tensor = self.second(functional.relu(self.first(x)))
        return found


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the two views of each row on the unit sphere, (B,), from 0 to 4: lower is better (Wang & Isola 2020)."""
    return (functional.normalize(first, dim=1) - functional.normalize(second, dim=1)).square().sum(1)


def uniformity(states: Tensor) -> Tensor:
    """``log mean exp(-2 |x - y|^2)`` over pairs of different rows on the unit sphere, from -8 to 0: lower is better (Wang & Isola 2020)."""
    return torch.pdist(functional.normalize(states, dim=1)).square().mul(-2).exp().mean().log()


def uniformity_metric(states: Tensor, *, seed: int) -> Metric:
    """``uniformity`` with an interval from a bootstrap of the rows."""
    unit = functional.normalize(states.float(), dim=1)
    kernel = (2 * (unit @ unit.T) - 2).mul(2).exp().double().numpy()  # exp(-2 |x - y|^2)
    np.fill_diagonal(kernel, 0.0)

    def statistic(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        weight = counts.astype(np.float64)
        pairs = weight.sum(1) ** 2 - np.square(weight).sum(1)  # a row that was drawn twice makes no pair with itself
        found: NDArray[np.float64] = np.log(np.einsum("ri,ij,rj->r", weight, kernel, weight, optimize=True) / pairs)
        return found

    draws = statistics.resample(statistic, np.ones(len(unit), np.int64), seed=seed, resamples=200)
    low, high = np.quantile(draws, [statistics.TAIL, 1 - statistics.TAIL])
    value = float(statistic(np.ones((1, len(unit)), np.int64))[0])
    return Metric(value, min(value, float(low)), max(value, float(high)), len(unit))
