"""What a loss is computed with: the trained module itself, or a copy in a lower precision that follows it (master weights).

The parameters and their optimiser stay in float32 (Micikevicius et al. 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import nn


class Working:
    """``copy`` is the module itself for float32; else a copy in ``precision`` that shares the module's buffers.

    A module with a part that is ``float32_only`` has no copy. Batch normalisation stays in float32: its running statistics are sums of
    many small steps.
    """

    def __init__(self, module: nn.Module, precision: torch.dtype) -> None:
        self.module = module
        whole = precision == torch.float32 or any(getattr(part, "float32_only", False) for part in module.modules())
        self.copy = module if whole else _copied(module, precision)
        named = dict(self.copy.named_parameters())
        self._twins = [] if self.copy is module else [(p, named[name]) for name, p in module.named_parameters()]

    def part(self, parameter: nn.Parameter) -> nn.Parameter:
        """What an optimiser moves for a parameter of the module: itself."""
        return parameter

    def move(self, parameters: Collection[nn.Parameter]) -> None:
        """Only these parameters of the module take gradients from now on; gradients that nobody used are dropped."""
        for parameter in self.module.parameters():
            parameter.requires_grad_(parameter in parameters)
            parameter.grad = None
        for parameter, twin in self._twins:
            twin.requires_grad_(parameter in parameters)
            twin.grad = None

    def gather(self) -> None:
        """Take the gradients over from the copy."""
        for parameter, twin in self._twins:
            parameter.grad = None if twin.grad is None else twin.grad.to(parameter.dtype)
            twin.grad = None

    def begin(self) -> None:
        """Start from the module's values."""
        self.follow()

    def settle(self) -> None:
        """Nothing: the module has the values."""

    def validated(self) -> nn.Module:
        """What held-out data are measured with."""
        return self.copy

    @torch.no_grad()
    def follow(self) -> None:
        """Let the copy have the parameters' values."""
        if self._twins:
            torch._foreach_copy_([twin for _, twin in self._twins], [parameter for parameter, _ in self._twins])


def _copied(module: nn.Module, precision: torch.dtype) -> nn.Module:
    twin = copy.deepcopy(module).to(precision)
    for ours, theirs in zip(module.modules(), twin.modules(), strict=True):
        if isinstance(theirs, nn.modules.batchnorm._BatchNorm):
            theirs.float()
        for name, buffer in ours.named_buffers(recurse=False):
            theirs._buffers[name] = buffer
    return twin
