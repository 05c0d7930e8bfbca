"""Contrastive losses and measures against their definitions."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from warmstart.engine import contrastive


def _pairs(n: int = 5, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)


def test_nt_xent_is_its_definition() -> None:
    first, second = _pairs()
    views = [functional.normalize(v, dim=0) for v in (*first, *second)]
    total = 0.0
    for i in range(10):
        terms = {j: math.exp(float(views[i] @ views[j]) / 0.5) for j in range(10) if j != i}
        total -= math.log(terms[(i + 5) % 10] / sum(terms.values()))
    assert float(contrastive.nt_xent(first, second, temperature=0.5)) == pytest.approx(total / 10, abs=1e-5)


def test_info_nce_is_its_definition() -> None:
    first, second = _pairs()
    cosine = functional.cosine_similarity(first[:, None], second[None], dim=2) / 0.05
    expected = -(cosine.diagonal() - cosine.logsumexp(1)).mean()
    assert float(contrastive.info_nce(first, second, temperature=0.05)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("loss", [contrastive.nt_xent, contrastive.info_nce])
def test_losses_do_not_see_lengths_nor_order_and_fall_when_pairs_agree(loss: object) -> None:
    first, second = _pairs()
    call = lambda a, b: float(loss(a, b, temperature=0.5))  # type: ignore[operator]  # noqa: E731
    assert call(3 * first, second / 7) == pytest.approx(call(first, second), abs=1e-5)
    assert call(first.flip(0), second.flip(0)) == pytest.approx(call(first, second), abs=1e-5)
    assert call(first, first) < call(first, second)


def test_alignment_and_uniformity_of_known_states() -> None:
    axes = torch.eye(4)
    assert contrastive.alignment(axes, 5 * axes).tolist() == [0.0] * 4
    assert contrastive.alignment(axes, -axes).tolist() == [4.0] * 4
    assert float(contrastive.uniformity(axes)) == pytest.approx(-4.0)  # all distances squared are 2
    assert float(contrastive.uniformity(axes[:1].expand(3, 4))) == pytest.approx(0.0)
    metric = contrastive.uniformity_metric(_pairs(60)[0], seed=0)
    assert metric.value == pytest.approx(float(contrastive.uniformity(_pairs(60)[0])), abs=1e-4)
    assert metric.low < metric.value < metric.high
    assert metric.n == 60


TWO = """
import sys, torch
from warmstart.engine import contrastive
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
x = torch.randn(8, 6)
layer = torch.nn.Linear(6, 4)
def loss(rows, world):
    first, second = (contrastive.gathered(h, rank=rank, world=world) for h in layer(torch.cat([x[rows], x[rows] * 2 + 1])).chunk(2))
    return contrastive.nt_xent(first, second, temperature=0.5)
whole = torch.autograd.grad(loss(slice(None), 1), layer.weight)[0]
share = loss(slice(rank, None, 2), 2)
mean = torch.autograd.grad(share * 2, layer.weight)[0]
torch.distributed.all_reduce(mean)
assert torch.allclose(mean / 2, whole, atol=1e-6), (mean / 2, whole)
assert abs(float(share) - float(loss(slice(None), 1))) < 1e-6
torch.distributed.destroy_process_group()
"""


def test_two_processes_together_have_the_gradient_of_one(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TWO, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
