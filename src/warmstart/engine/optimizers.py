"""Optimisers of pre-training: fused AdamW, SGD with momentum, and Muon in batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import BadOption
from warmstart.engine import device, sharded
from warmstart.engine.learner import Group

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic of the Newton-Schulz iteration (Jordan et al. 2024): steepest at zero; singular values end between about 0.7 and 1.2."""


def build(groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
    """One optimiser for each group, in the same order.

    Their state is plain tensors by parameter (``step``, ``exp_avg``, ``exp_avg_sq``, ``momentum_buffer``), made at the first step.

    Raises:
        BadOption: A group of Muon has a parameter that is not a matrix.
    """
    return [_one(group) for group in groups]


def _one(group: Group) -> torch.optim.Optimizer:
    parameters = list(group.parameters)
    if group.kind == "muon":
        return Muon(parameters, lr=group.lr, momentum=group.momentum, weight_decay=group.weight_decay)
    if group.kind == "sgd":
        return torch.optim.SGD(parameters, lr=group.lr, momentum=group.momentum, weight_decay=group.weight_decay)
    return torch.optim.AdamW(parameters, lr=group.lr, betas=group.betas, weight_decay=group.weight_decay, fused=True)


def in_order_of(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment from a file in the device and the memory order of its parameter: fused AdamW goes through both as they lie in memory, so
    that with another order (``channels_last``) it would give each weight the moment of another one."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made (nearly) orthogonal, for matrices between hidden layers (Jordan et al. 2024).

    ``B = momentum B + (1 - momentum) G``; ``O = NewtonSchulz((1 - momentum) G + momentum B)``;
    ``W -= lr (weight_decay W + sqrt(max(1, rows / columns)) O)``. The rate is independent of the size of the gradient; 0.02 is usual.

    Matrices of one shape are made orthogonal together: on two CPU cores that takes a third of the time of ``torch.optim.Muon``
    at width 128.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim != 2:
                raise BadOption(
                    f"Muon was given a parameter of shape {tuple(parameter.shape)}",
                    "matrices alone",
                    "put the others into a group of adamw",
                )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step from the gradients."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._move(moved, group)
        return loss

    def _move(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, buffers, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_([*parameters], 1 - group["lr"] * group["weight_decay"])
        shapes: dict[torch.Size, list[int]] = {}
        for i, parameter in enumerate(parameters):
            shapes.setdefault(parameter.shape, []).append(i)
        for shape, places in shapes.items():
            updates = orthogonal(torch.stack([sharded.whole(directions[i]) for i in places]))
            scale = -group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
            moves = [sharded.parted(update, parameters[i]) for i, update in zip(places, updates.unbind(), strict=True)]
            torch._foreach_add_([parameters[i] for i in places], moves, alpha=scale)


def orthogonal(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """About ``U V^T`` of each of ``matrices (K, H, W) = U S V^T``, in their own type; zero matrices stay zero.

    Computed in bfloat16 where the processor has it: the iteration corrects its own rounding.
    """
    a, b, c = COEFFICIENTS
    kind = torch.bfloat16 if device.has_bfloat16(matrices.device) else torch.float32
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)).to(kind)  # (K, h, w), h <= w
    for _ in range(steps):
        gram = x @ x.mT  # (K, h, h)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
