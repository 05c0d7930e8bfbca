"""How much memory the activations of a step take, by one rule: what every layer gives, kept for the backward pass, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PER_NUMBER = 8
"""Bytes for each number that a layer gives: the activation and its gradient, in float32."""


def numbers(module: nn.Module, run: Callable[[], object]) -> int:
    """Numbers that the innermost layers of ``module`` give while ``run`` shows it one row, in evaluation mode and without gradients."""
    found: list[int] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found.append(output.numel())

    training = module.training
    hooks = [m.register_forward_hook(see) for m in module.modules() if not list(m.children())]
    module.eval()
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    module.train(training)
    return sum(found)
