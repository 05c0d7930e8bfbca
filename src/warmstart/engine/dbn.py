"""Deep belief networks: restricted Boltzmann machines, each on what the one below makes of the data, and the autoencoder they unroll into.

Hinton, Osindero & Teh 2006; Hinton & Salakhutdinov 2006.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from warmstart.engine.rbm import Rbm, Units

AT_ONCE = 1 << 12


class DeepBelief(nn.Module):
    """A stack of machines, and where it is unrolled an ``encoder`` and a ``decoder`` that begin with their weights.

    Args:
        sizes: Units of every layer, the visible ones first.
        visible_units: Of the lowest layer.
        linear_code: Gaussian hidden units in the highest layer, which as an encoder is linear.
        chains: Persistent chains of every machine.
        unroll: Whether there is an autoencoder.
    """

    def __init__(self, sizes: Sequence[int], *, visible_units: Units, linear_code: bool, chains: int, unroll: bool) -> None:
        super().__init__()
        last = len(sizes) - 2
        self.machines = nn.ModuleList(
            Rbm(
                a,
                b,
                visible_units=visible_units if i == 0 else "bernoulli",
                hidden_units="gaussian" if linear_code and i == last else "bernoulli",
                chains=chains,
            )
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.linear_code = linear_code
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)) if unroll else nn.ModuleList()
        down = list(reversed(sizes))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(down)) if unroll else nn.ModuleList()

    def machine(self, layer: int) -> Rbm:
        """The machine of a layer, counted from 0."""
        return cast(Rbm, self.machines[layer])

    def forward(self, x: Tensor) -> Tensor:
        """Of the autoencoder: (B, V) -> what goes into the visible units, (B, V)."""
        for i, layer in enumerate(self.encoder):
            x = layer(x)
            x = x if self.linear_code and i == len(self.encoder) - 1 else torch.sigmoid(x)
        for i, layer in enumerate(self.decoder):
            x = layer(x)
            x = x if i == len(self.decoder) - 1 else torch.sigmoid(x)
        return x

    @torch.no_grad()
    def unroll(self) -> None:
        """Start the autoencoder with the machines' weights; those of encoder and decoder are fine-tuned apart from each other."""
        for i, (up, down) in enumerate(zip(self.encoder, reversed(self.decoder), strict=True)):
            machine = self.machine(i)
            cast(Tensor, up.weight).copy_(machine.weight)
            cast(Tensor, up.bias).copy_(machine.hidden_bias)
            cast(Tensor, down.weight).copy_(machine.weight.T)
            cast(Tensor, down.bias).copy_(machine.visible_bias)

    @torch.no_grad()
    def means(self, x: Tensor, layers: int) -> Tensor:
        """Mean activities after the first ``layers`` machines: (B, V) -> (B, D)."""
        for i in range(layers):
            x = self.machine(i).hidden_mean(x)
        return x

    @torch.no_grad()
    def down(self, x: Tensor, layers: int) -> Tensor:
        """From mean activities above ``layers`` machines to the visible units' means: (B, D) -> (B, V)."""
        for i in reversed(range(layers)):
            x = self.machine(i).visible_mean(x)
        return x

    @torch.no_grad()
    def dream(self, n: int, steps: int, generator: torch.Generator) -> Tensor:
        """Samples (n, V): Gibbs steps in the highest machine from random states, then one pass down."""
        top = self.machine(len(self.machines) - 1)
        start = torch.rand(n, len(top.hidden_bias), generator=generator).to(top.weight.device)
        mean, _ = top.gibbs((start > 0.5).to(top.weight.dtype), steps, generator)
        return self.down(mean, len(self.machines) - 1)
