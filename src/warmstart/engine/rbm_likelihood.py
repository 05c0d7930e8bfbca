"""How probable a restricted Boltzmann machine finds its data: pseudo-likelihood, exact, and by annealed importance sampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from warmstart.engine.rbm import LEVELS, Rbm, noise, sampled

EXACT_UNITS = 20
"""With no more units than this on one side, the partition function is summed up exactly."""
AT_ONCE = 1 << 12


@torch.no_grad()
def pseudo_likelihood(rbm: Rbm, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """``V log P(v_i | the others)`` with one visible unit ``i`` drawn for every row (B, V): (B,).

    The estimator of scikit-learn's ``BernoulliRBM.score_samples``, so that both can be compared; visible units are Bernoulli.
    """
    rows, units = torch.arange(len(v)), torch.randint(v.shape[1], (len(v),), generator=generator)
    flipped = v.clone()
    flipped[rows, units] = 1 - flipped[rows, units]
    return v.shape[1] * F.logsigmoid(rbm.free_energy(flipped) - rbm.free_energy(v))


@torch.no_grad()
def exact_log_partition(rbm: Rbm) -> float:
    """``log Z`` of binary units, in double precision, by summing over all states of the smaller side.

    Raises:
        ValueError: Both sides have more than ``EXACT_UNITS`` units.
    """
    w, b, c = (p.detach().double() for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    if w.shape[0] > w.shape[1]:
        w, b, c = w.T, c, b
    n = w.shape[0]
    if n > EXACT_UNITS:
        raise ValueError(f"2^{n} states are too many to sum up")
    parts = []
    for start in range(0, 1 << n, AT_ONCE):
        codes = torch.arange(start, min(1 << n, start + AT_ONCE))
        h = (codes[:, None] >> torch.arange(n) & 1).double()
        parts.append(torch.logsumexp(h @ c + F.softplus(h @ w + b).sum(1), 0))
    return float(torch.logsumexp(torch.stack(parts), 0))


@torch.no_grad()
def annealed_log_partition(
    rbm: Rbm, mean: Tensor, *, steps: int = 1000, chains: int = 100, generator: torch.Generator | None = None
) -> tuple[float, float, float]:
    """``log Z`` of binary units by annealed importance sampling (Salakhutdinov & Murray 2008), with a 95 % interval.

    The chains go from independent visible units with means ``mean`` (V,) to the machine, over ``steps`` inverse temperatures.

    Returns:
        (log Z, low, high); the interval is that of a mean of weights, and too narrow where chains do not mix.
    """
    w, b, c = (p.detach().float() for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    share = mean.float().clamp(1 / LEVELS, 1 - 1 / LEVELS)
    base = torch.log(share / (1 - share))
    shape = (chains, len(base))
    v = sampled(share.expand(shape), noise(shape, "bernoulli", generator, w.device), "bernoulli")
    weights = torch.zeros(chains, dtype=torch.float64, device=w.device)
    betas = torch.linspace(0, 1, steps + 1).tolist()
    for i in range(steps):
        low, high = betas[i], betas[i + 1]
        into = F.linear(v, w, c)
        gain = (high - low) * (v @ (b - base)) + (F.softplus(high * into) - F.softplus(low * into)).sum(1)
        weights += gain.double()
        if i < steps - 1:
            h = sampled(torch.sigmoid(high * into), noise(into.shape, "bernoulli", generator, w.device), "bernoulli")
            up = (1 - high) * base + high * (h @ w + b)
            v = sampled(torch.sigmoid(up), noise(shape, "bernoulli", generator, w.device), "bernoulli")
    start = float(F.softplus(base.double()).sum()) + len(c) * math.log(2)
    found = float(torch.logsumexp(weights, 0)) - math.log(chains)
    relative = torch.exp(weights - found)
    half = 1.96 * float(relative.std()) / math.sqrt(chains)
    return start + found, start + found + math.log(max(1 - half, 1e-3)), start + found + math.log1p(half)
