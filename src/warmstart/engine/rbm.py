"""Restricted Boltzmann machines: energies, Gibbs steps, and the statistics of contrastive divergence. B rows, V visible, H hidden units.

Hinton 2002 (CD-k), Tieleman 2008 (persistent chains), Hinton 2010 (a practical guide).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Units = Literal["bernoulli", "gaussian"]

LEVELS = 1 << 16
"""Steps of a random number that decides a binary unit: 16 random bits. Four of them cost what one float costs."""
START_DEVIATION = 0.01
RAREST = 0.01
"""Visible units begin no rarer than this; a unit that is never on would need a bias of minus infinity."""


class Rbm(nn.Module):
    """``E(v, h) = -h W v - b v - c h`` for binary units; a Gaussian unit adds ``(v - b)^2 / 2`` or ``(h - c)^2 / 2`` in place of its bias.

    Gaussian units have unit variance, so Gaussian inputs should be standardised. ``weight`` is (H, V), as of the ``nn.Linear`` that the
    machine becomes; ``chain`` (K, H) holds the states of persistent chains, and the velocities what ``sweep`` has gathered of momentum.
    """

    chain: Tensor
    weight_velocity: Tensor
    visible_velocity: Tensor
    hidden_velocity: Tensor

    def __init__(
        self, visible: int, hidden: int, *, visible_units: Units = "bernoulli", hidden_units: Units = "bernoulli", chains: int = 1
    ):
        super().__init__()
        self.visible_units, self.hidden_units = visible_units, hidden_units
        self.weight = nn.Parameter(START_DEVIATION * torch.randn(hidden, visible))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("chain", torch.zeros(chains, hidden))
        for name, parameter in (("weight", self.weight), ("visible", self.visible_bias), ("hidden", self.hidden_bias)):
            self.register_buffer(f"{name}_velocity", torch.zeros_like(parameter, requires_grad=False))

    def into(self, v: Tensor) -> Tensor:
        """What goes into the hidden units: (B, V) -> (B, H)."""
        return F.linear(v, self.weight, self.hidden_bias)

    def hidden_mean(self, v: Tensor) -> Tensor:
        """``E[h | v]``: (B, V) -> (B, H)."""
        return self.hidden_units_mean(self.into(v))

    def hidden_units_mean(self, into: Tensor) -> Tensor:
        """The mean of hidden units that this goes into."""
        return torch.sigmoid(into) if self.hidden_units == "bernoulli" else into

    def visible_mean(self, h: Tensor) -> Tensor:
        """``E[v | h]``: (B, H) -> (B, V)."""
        into = torch.addmm(self.visible_bias, h, self.weight)
        return torch.sigmoid(into) if self.visible_units == "bernoulli" else into

    def free_energy(self, v: Tensor) -> Tensor:
        """``F(v) = -log sum_h exp(-E(v, h))``, up to a constant where hidden units are Gaussian: (B, V) -> (B,)."""
        return self.free_energy_from(v, self.into(v))

    def free_energy_from(self, v: Tensor, into: Tensor) -> Tensor:
        """The same, where ``into`` the hidden units is known."""
        b, c = self.visible_bias.to(v.dtype), self.hidden_bias.to(v.dtype)
        own = -(v @ b) if self.visible_units == "bernoulli" else (v - b).square().sum(1) / 2
        if self.hidden_units == "bernoulli":
            return own - F.softplus(into).sum(1)
        return own - (into.square() - c.square()).sum(1) / 2  # u^2 / 2 + c u, where u + c goes in

    @torch.no_grad()
    def start(self, mean: Tensor) -> None:
        """Begin with visible units that are as often on as in the data (Hinton 2010, section 8): ``mean`` (V,)."""
        if self.visible_units == "bernoulli":
            share = mean.clamp(RAREST, 1 - RAREST)
            self.visible_bias.copy_(torch.log(share / (1 - share)))
        else:
            self.visible_bias.copy_(mean)

    @torch.no_grad()
    def gibbs(self, h: Tensor, steps: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``steps`` full Gibbs steps from hidden states (B, H): the last means of the visible units (B, V), and hidden states."""
        mean = self.visible_mean(h)
        for step in range(steps):
            v = sampled(mean, noise(mean.shape, self.visible_units, generator, mean.device), self.visible_units)
            up = self.hidden_mean(v)
            h = sampled(up, noise(up.shape, self.hidden_units, generator, up.device), self.hidden_units)
            if step < steps - 1:
                mean = self.visible_mean(h)
        return mean, h


def noise(shape: Sequence[int], units: Units, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """What decides the states of units: int16, every value equally likely; or for Gaussian units standard normal numbers."""
    if units == "gaussian":
        return torch.randn(tuple(shape), generator=generator).to(device)
    n = math.prod(shape)
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:n].view(tuple(shape)).to(device)


def sampled(mean: Tensor, drawn: Tensor, units: Units) -> Tensor:
    """States of units with these means, in the type of ``mean``."""
    if units == "gaussian":
        return mean + drawn.to(mean.dtype)
    # Compared in place: a boolean tensor in between takes ten times longer.
    return mean.to(torch.float32, copy=True).mul_(LEVELS).sub_(LEVELS // 2).gt_(drawn.float()).to(mean.dtype)


@dataclass(frozen=True)
class Rows:
    """What one step of contrastive divergence sees, as process ``rank`` of ``world`` does.

    ``x`` (B, V) is its share of the rows. ``draws`` are the random numbers of all processes: for the first hidden states (empty where
    chains persist), then in turn for visible and hidden states.
    """

    x: Tensor
    draws: tuple[Tensor, ...]
    rank: int = 0
    world: int = 1
    total: int = 0


def drawn(rbm: Rbm, rows: int, k: int, *, persistent: bool, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random numbers for one step, of ``rows`` rows or of the persistent chains."""
    hidden, visible = rbm.weight.shape
    n = len(rbm.chain) if persistent else rows
    wanted: list[tuple[int, Units]] = [] if persistent else [(hidden, rbm.hidden_units)]
    for i in range(k):
        wanted.append((visible, rbm.visible_units))
        if i < k - 1 or persistent:
            wanted.append((hidden, rbm.hidden_units))
    if any(units == "gaussian" for _, units in wanted):
        return tuple(noise((n, width), units, generator, rbm.weight.device) for width, units in wanted)
    sizes = [n * width for width, _ in wanted]
    whole = noise((sum(sizes),), "bernoulli", generator, rbm.weight.device)  # one call for all
    return tuple(part.view(n, -1) for part in torch.split(whole, sizes))


@dataclass(frozen=True)
class How:
    """How contrastive divergence is done.

    ``k`` Gibbs steps, from the data or on chains that are ``persistent``. ``decay`` pulls the weights, not the biases, to zero.
    ``sparsity`` is the wanted mean activity of a hidden unit; ``sparsity_cost`` times the distance from it is added to the gradient of
    the hidden biases (Lee, Ekanadham & Ng 2008).
    """

    k: int = 1
    persistent: bool = False
    decay: float = 0.0
    sparsity: float | None = None
    sparsity_cost: float = 0.0


@torch.no_grad()
def contrast(rbm: Rbm, rows: Rows, how: How, *, measure: bool = True) -> Tensor | None:
    """Put the gradient of contrastive divergence into the parameters: statistics after Gibbs steps minus statistics of the data.

    Persistent chains are run whole by every process, so that they are the same everywhere; chains that begin at the data are each run
    by the process that has the row.

    Returns:
        Where it is asked for, the mean free energy of the data minus that of the chains, whose gradient this is.
    """
    kind, x = rbm.weight.dtype, rows.x
    draws = list(rows.draws) if how.persistent else [d[rows.rank :: rows.world] for d in rows.draws]
    first = None if how.persistent else rbm.into(x)
    h = rbm.chain.to(kind) if first is None else sampled(rbm.hidden_units_mean(first), draws.pop(0), rbm.hidden_units)
    for i in range(how.k):
        v = sampled(rbm.visible_mean(h), draws.pop(0), rbm.visible_units)
        if i < how.k - 1:
            h = sampled(rbm.hidden_mean(v), draws.pop(0), rbm.hidden_units)
    both = torch.cat([x, v])  # (B + K, V): one product for the data and the chains
    into = rbm.into(both) if first is None else torch.cat([first, rbm.into(v)])
    mean = rbm.hidden_units_mean(into)
    n = len(x)
    if how.persistent:
        rbm.chain.copy_(sampled(mean[n:], draws.pop(0), rbm.hidden_units))
    per_row = rows.world / (rows.total or n * rows.world)
    shares = torch.full((len(both),), 1 / len(v) if how.persistent else per_row, dtype=kind, device=x.device)
    shares[:n] = -per_row
    weighed = mean * shares[:, None]
    decay = how.decay
    rbm.weight.grad = torch.addmm(rbm.weight, weighed.T, both, beta=decay) if decay else weighed.T @ both
    rbm.hidden_bias.grad = weighed.sum(0)
    rbm.visible_bias.grad = shares @ both
    if how.sparsity is not None:
        rbm.hidden_bias.grad += how.sparsity_cost * (mean[:n].float().mean(0) - how.sparsity).to(kind)
    return _gap(rbm, both, into, shares, rbm.visible_bias.grad) if measure else None


def _gap(rbm: Rbm, both: Tensor, into: Tensor, shares: Tensor, weighed: Tensor) -> Tensor:
    """``-shares F(both)``, where ``weighed`` is ``shares both``."""
    if rbm.visible_units == "bernoulli" and rbm.hidden_units == "bernoulli":
        return weighed.float() @ rbm.visible_bias.float() + (shares @ F.softplus(into)).float().sum()
    return -(shares.float() @ rbm.free_energy_from(both.float(), into.float()))


@torch.no_grad()
def sweep(rbm: Rbm, scratch: Rbm, steps: Sequence[Rows], how: How, *, lr: float, momentum: float) -> tuple[list[Tensor], Tensor]:
    """Several steps of contrastive divergence with momentum, as one: what they move, divided by ``-lr``.

    A step of a small machine takes less time than a training loop spends around it. ``scratch`` is a copy of the machine in the precision
    of the computation; ``rbm`` is left as it was but for its velocities and chains.

    Returns:
        One gradient for each parameter, which a plain gradient step turns into the sum of all steps; and the gap of ``contrast`` in the
        last one.
    """
    here: list[Tensor] = list(rbm.parameters())
    there: list[Tensor] = list(scratch.parameters())
    velocities = [rbm.weight_velocity, rbm.visible_velocity, rbm.hidden_velocity]
    moving = [parameter.clone() for parameter in here]
    torch._foreach_copy_(there, moving)
    scratch.chain = rbm.chain
    gap = None
    for i, rows in enumerate(steps):
        gap = contrast(scratch, rows, how, measure=i == len(steps) - 1)
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, [p.grad.float() for p in there if p.grad is not None])
        torch._foreach_add_(moving, velocities, alpha=-lr)
        torch._foreach_copy_(there, moving)
    if gap is None:
        raise ValueError("a sweep of no steps")
    return [(before - after) / lr for before, after in zip(here, moving, strict=True)], gap
