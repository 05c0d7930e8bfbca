"""A network's forward pass written out from the tensors of a plain state dict by name: what a conversion is checked against.

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional

Padding: TypeAlias = int | Literal["same"]
"""Pixels on each side, or TensorFlow's rule: as many as ``ceil(size / stride)`` outputs need, the odd one behind."""


NORM = ("weight", "bias", "running_mean", "running_var")
BIASED = ("weight", "bias")


def renamed(layers: Iterable[tuple[str, str]], parts: tuple[str, ...] = ("weight",)) -> dict[str, str]:
    """Names of tensors from names of layers, old and new: ``parts`` are what each layer has."""
    return {f"{old}.{part}": f"{new}.{part}" for old, new in layers for part in parts}


class Raw:
    """Layers by the names of their tensors; ``eps`` is that of all batch norms."""

    def __init__(self, tensors: Mapping[str, Tensor], *, eps: float = 1e-5) -> None:
        self.tensors, self.eps = tensors, eps

    def conv(self, x: Tensor, name: str, *, stride: int = 1, padding: Padding = 0, depthwise: bool = False) -> Tensor:
        """A convolution, with its bias where there is one: (B, C, H, W)."""
        weight = self.tensors[f"{name}.weight"].float()
        if padding == "same":
            x, padding = same(x, kernel=weight.shape[-1], stride=stride), 0
        bias = self.tensors.get(f"{name}.bias")
        groups = len(weight) if depthwise else 1
        return functional.conv2d(x, weight, None if bias is None else bias.float(), stride=stride, padding=padding, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """A batch norm in evaluation mode."""
        mean, var, weight, bias = (self.tensors[f"{name}.{part}"].float() for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A linear layer."""
        return functional.linear(x, self.tensors[f"{name}.weight"].float(), self.tensors[f"{name}.bias"].float())


def widths(tensors: Mapping[str, Tensor], names: Iterable[str]) -> list[int]:
    """Channels that layers give."""
    return [len(tensors[f"{name}.weight"]) for name in names]


def same(x: Tensor, *, kernel: int, stride: int) -> Tensor:
    """(B, C, H, W) with the zeros of TensorFlow's padding "SAME" around it."""
    sides = []
    for size in (x.shape[-1], x.shape[-2]):
        whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [whole // 2, whole - whole // 2]
    return functional.pad(x, sides)
