"""Packed weights: faster products with the same bits, and rows that do not depend on their company."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from warmstart.engine import packed


def test_the_same_bits() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48, bias=False)).to(torch.bfloat16).eval()
    fast = packed.pack(copy.deepcopy(plain))
    x = torch.randn(5, 7, 48).to(torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(fast(x), plain(x))
        assert torch.equal(fast(x)[1:3], fast(x[1:3]))
    assert list(fast.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_are_left_alone(dtype: torch.dtype) -> None:
    body = nn.Sequential(nn.Linear(4, 4)).to(dtype)
    packed.pack(body)
    assert "forward" not in body[0].__dict__
