"""Batch norms that learn by the statistics of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from warmstart.engine import batch_norms


def test_the_estimate_is_the_mean_over_batches_and_leaves_what_was_not_reached() -> None:
    norm, unreached = nn.BatchNorm1d(3, momentum=0.5).eval(), nn.BatchNorm1d(3).eval()
    unreached.running_mean += 7
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * 3 + 5
    stream = [np.arange(i, i + 20) for i in (0, 20, 40)]
    batch_norms.estimate([norm, unreached], lambda positions: norm(x[positions]), stream)
    torch.testing.assert_close(norm.running_mean, x.mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x[part].var(0) for part in stream]).mean(0))
    assert (norm.momentum, norm.training) == (0.5, False)
    assert unreached.running_mean.tolist() == [7, 7, 7]


def test_the_last_batches_are_enough() -> None:
    norm, seen = nn.BatchNorm1d(1), []

    def pass_over(positions: np.ndarray) -> None:
        seen.append(int(positions[0]))
        norm(torch.randn(len(positions), 1))

    stream = [np.full(400, i) for i in range(9)]
    batch_norms.estimate([norm], pass_over, stream)
    assert seen == [8, 7, 6]


def test_norms_of_a_body_in_bfloat16_compute_in_float32_and_hand_over() -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    twin = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).to(torch.bfloat16)
    layers = batch_norms.among(twin, list(twin.parameters()))
    x = torch.randn(8, 1, 4, 4).to(torch.bfloat16)
    with batch_norms.by_batch(layers):
        twin(x).sum().backward()
    assert layers[0].weight.grad is not None
    assert layers[0].running_mean.dtype == torch.float32
    batch_norms.hand_over(layers, batch_norms.among(body))
    assert torch.equal(body[1].running_mean, layers[0].running_mean)


def test_only_trained_norms_that_keep_statistics_are_found() -> None:
    body = nn.Sequential(
        nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False), nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2)
    )
    assert batch_norms.among(body) == [body[0], body[3]]
    assert batch_norms.among(body, [body[3].weight]) == [body[3]]
