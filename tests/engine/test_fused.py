"""Hand-written gradients against those of autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.engine import fused


def _compare(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Equal values and equal gradients with respect to all inputs."""
    outcomes = []
    for function in (ours, plain):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*leaves)
        torch.manual_seed(1)
        value.backward(torch.randn_like(value))
        outcomes.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(8,), (3, 8)])
def test_rms_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 3, 8), torch.randn(shape)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    _compare(lambda x, w: fused.rms_norm(x, w, eps=1e-6), plain, x, weight)


def test_rotation_turns_pairs_by_their_position() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    cosine, sine = fused.rotary_tables(5, 8, 100.0, torch.float32, x.device)
    turned = fused.rotate(x, cosine, sine)
    angles = torch.outer(torch.arange(5.0), 100.0 ** (-torch.arange(4) / 4))
    numbers = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(5, 4), angles)[:, None]
    torch.testing.assert_close(turned, torch.cat([numbers.real, numbers.imag], -1))
    x.requires_grad_()
    gradient = torch.autograd.grad(fused.rotate(x, cosine, sine), x, turned)[0]
    torch.testing.assert_close(gradient, x.detach())  # the gradient turns back


@pytest.mark.parametrize("length", [5, fused.QUERIES + 40])
def test_attention(length: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, length, 4) for _ in range(3)]
    _compare(fused.attend, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *inputs)


@pytest.mark.parametrize("logits", [fused.LOGITS, 40])
def test_cross_entropy_in_one_or_several_parts(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "LOGITS", logits)
    torch.manual_seed(0)
    states, weight, targets = torch.randn(9, 4), torch.randn(11, 4), torch.randint(11, (9,))
    _compare(
        lambda s, w: fused.cross_entropy(s, w, targets), lambda s, w: F.cross_entropy(s @ w.T, targets, reduction="sum"), states, weight
    )
    rows = fused.token_losses(states, weight, targets)
    torch.testing.assert_close(rows, F.cross_entropy(states @ weight.T, targets, reduction="none"))
