"""The fastest matrix multiplications of this machine, in GFLOP/s: a feed-forward layer of the backbone, and a large square."""

from __future__ import annotations

import time

import torch
from common import answer

SIZES = {"1024x384x1536": (1024, 384, 1536), "2048x2048x2048": (2048, 2048, 2048)}


@torch.inference_mode()
def peak(shape: tuple[int, int, int], dtype: torch.dtype, budget_seconds: float = 2.0) -> float:
    """Best of as many products as the budget allows, with and without a transposed right side."""
    rows, inner, columns = shape
    left = torch.randn(rows, inner).to(dtype)
    rights = [torch.randn(inner, columns).to(dtype), torch.randn(columns, inner).to(dtype).T]
    best = float("inf")
    end = time.perf_counter() + budget_seconds
    while time.perf_counter() < end:
        for right in rights:
            start = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best / 1e9


answer(
    **{f"{str(d).removeprefix('torch.')} {name}": peak(shape, d) for d in (torch.float32, torch.bfloat16) for name, shape in SIZES.items()}
)
