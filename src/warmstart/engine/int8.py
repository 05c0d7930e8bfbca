"""Frozen linear layers in eight bits: an option for machines whose processor multiplies bytes faster than bfloat16.

Weights get one scale a row and activations one scale a token (Dettmers et al. 2022, without their outlier features), so nothing has
to be calibrated and the result of a token depends on no other. Everything between the products stays in the type that the body computes
in.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from warmstart.engine import cut

LARGEST = 127
ZERO = 128  # activations are stored unsigned, as the instructions want them
FLIP = -128  # the highest bit: adds ``ZERO`` to a signed byte
SMALLEST = 1e-12


def layers(body: nn.Module) -> list[nn.Linear]:
    """The linear layers that ``quantise`` changes: those of the trunk's blocks."""
    trunk = cut.find_trunk(body)
    if trunk is None:
        return []
    return [layer for block in trunk.blocks for layer in block.modules() if type(layer) is nn.Linear]


def quantise(body: nn.Module) -> nn.Module:
    """Let the linear layers of the trunk predict in int8; the body is changed and returned.

    Only for bodies that are not trained any more.
    """
    for layer in layers(body):
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(SMALLEST) / LARGEST  # (out,)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        layer.forward = partial(_product, packed=packed, scale=scale, zeros=zeros, bias=layer.bias)  # type: ignore[method-assign]
    return body


def _product(x: Tensor, *, packed: Tensor, scale: Tensor, zeros: Tensor, bias: Tensor | None) -> Tensor:
    rows, steps = _rounded(x.reshape(-1, x.shape[-1]))
    found = torch.ops.onednn.qlinear_pointwise(rows, 1.0, ZERO, packed, scale, zeros, None, 1.0, 0, x.dtype, "none", [], "")
    found = found.mul_(steps) if bias is None else torch.addcmul(bias, found, steps)
    return found.view(*x.shape[:-1], -1)


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, D) as bytes around ``ZERO``, and the size of one step in each row: (N, 1)."""
    wide = x.float() if x.dtype != torch.float32 else x.clone()
    largest = torch.maximum(wide.amax(-1, keepdim=True), wide.amin(-1, keepdim=True).neg_())
    steps = (largest / LARGEST).clamp_min_(SMALLEST).to(x.dtype)
    signed = wide.mul_(1 / steps.float()).round_().to(torch.int8)
    return signed.bitwise_xor_(FLIP).view(torch.uint8), steps
