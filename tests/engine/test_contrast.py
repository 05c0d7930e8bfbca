"""The contrastive phase: its loss as the paper writes it, its batches, and what it does to a body."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.engine import contrast, master_weights, network
from warmstart.engine.clock import Pace
from warmstart.engine.fit import Group
from warmstart.engine.job import Job
from warmstart.engine.network import Network
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench


def by_hand(embedded: torch.Tensor, targets: list[int], temperature: float) -> float:
    """Khosla et al. 2020, equation 2, one anchor and one partner at a time."""
    z = [v / v.norm() for v in embedded.double()]
    anchors = []
    for i, label in enumerate(targets):
        others = [a for a in range(len(z)) if a != i]
        partners = [p for p in others if targets[p] == label]
        if partners:
            total = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
            anchors.append(-sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / total) for p in partners) / len(partners))
    return sum(anchors) / len(anchors)


@pytest.mark.parametrize("targets", [[0, 0, 1, 1, 2], [0, 1, 0, 0, 0], [3, 3, 3]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_that_of_the_paper(targets: list[int], temperature: float) -> None:
    embedded = torch.randn(len(targets), 6, generator=torch.Generator().manual_seed(0))
    found = contrast.loss(embedded, torch.tensor(targets), temperature=temperature)
    assert float(found) == pytest.approx(by_hand(embedded, targets, temperature), rel=1e-4)


def test_a_batch_without_any_pair_has_no_loss_and_no_bad_gradient() -> None:
    embedded = torch.randn(3, 4, requires_grad=True)
    found = contrast.loss(embedded, torch.tensor([0, 1, 2]))
    found.backward()
    assert float(found.detach()) == 0
    assert embedded.grad is not None
    assert not embedded.grad.isnan().any()


def test_batches_hold_pairs_of_every_class_evenly() -> None:
    targets = np.array([0] * 50 + [1] * 3 + [2])
    stream = contrast.batches(targets, steps=20, rows=12, random=np.random.default_rng(0))
    assert len(stream) == 20
    for positions in stream:
        counts = np.bincount(targets[positions], minlength=3)
        assert len(set(positions.tolist())) == len(positions)
        assert counts.tolist() == [4, 3, 1]
    many = contrast.batches(np.arange(300) % 100, steps=30, rows=16, random=np.random.default_rng(0))
    assert all(len(positions) == 16 and (np.bincount(positions % 100)[np.unique(positions % 100)] == 2).all() for positions in many)


def test_rows_of_a_class_are_drawn_together_from_a_cut_as_from_the_raw_rows(tmp_path: Path) -> None:
    bench, rows = tiny_bench(tmp_path), np.arange(96)
    bench.require_cut(2)
    bench.prepare(rows, 2)
    losses = []
    for point in (0, 2):
        net = Network(copy.deepcopy(bench.backbone.model), None)
        assert net.trunk is not None
        last = tuple(net.trunk.blocks[-1].parameters())
        others = [p for p in net.parameters() if not any(p is q for q in last)]
        frozen = [p.clone() for p in others]
        before = _contrast(bench, net)
        job = Job("fold0", {}, 0, Pace(math.inf))
        done = contrast.run(bench, net, rows=rows, groups=[Group(last, 1e-2)], point=point, steps=60, job=job)
        assert (done.steps, job.replans) == (60, {"fold0": []})
        assert _contrast(bench, net) < before - 0.2
        assert all(torch.equal(a, b) for a, b in zip(others, frozen, strict=True))
        losses.append(done.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_gradient_in_parts_is_that_of_all_rows_together() -> None:
    torch.manual_seed(0)
    rows, targets = torch.randn(11, 5), torch.arange(11) % 3
    body = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    found = {}
    for count in (1, 2, 4, 11):
        body.zero_grad()
        loss = contrast.in_parts(lambda part: body(rows[part]), np.array_split(np.arange(11), count), lambda z: contrast.loss(z, targets))
        loss.backward()
        found[count] = (float(loss.detach()), [p.grad.clone() for p in body.parameters() if p.grad is not None])
    for value, gradients in found.values():
        assert value == pytest.approx(found[1][0], rel=1e-5)
        torch.testing.assert_close(gradients, found[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("large", [2**30, 1])
def test_long_rows_go_through_the_body_in_parts(large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With embedding tables that have dense gradients, and sparse ones."""
    bench, rows = tiny_bench(tmp_path), np.arange(96)
    monkeypatch.setattr(master_weights, "LARGE", large)
    assert len(contrast.parts_of(bench, rows[:64])) == 1
    ended = []
    for tokens in (4096, 100):
        monkeypatch.setattr(contrast, "TOKENS", tokens)
        net = Network(copy.deepcopy(bench.backbone.model), None)
        moved = [Group(tuple(net.body.parameters()), 1e-3)]
        contrast.run(bench, net, rows=rows, groups=moved, point=0, steps=4, job=Job("fold0", {}, 0, Pace(math.inf)))
        ended.append(_contrast(bench, net))
    assert len(contrast.parts_of(bench, rows[:64])) > 4
    assert ended[0] < _contrast(bench, Network(bench.backbone.model, None)) - 0.01
    assert ended[1] == pytest.approx(ended[0], rel=1e-3)


def test_too_slow_a_phase_is_shortened_and_followed(tmp_path: Path) -> None:
    bench, rows = tiny_bench(tmp_path), np.arange(96)

    def run(job: Job) -> tuple[int, dict[str, torch.Tensor]]:
        net = Network(copy.deepcopy(bench.backbone.model), None)
        moved = [Group(tuple(net.body.parameters()), 1e-2)]
        done = contrast.run(bench, net, rows=rows, groups=moved, point=0, steps=60, job=job)
        return done.steps, net.state_dict()

    late = Job("fold0", {}, 0, Pace(0.0), tmp_path / "job")
    steps, weights = run(late)
    assert steps <= 12
    recorded = late.replans["fold0.contrast"]
    assert recorded[-1][1] == steps
    for again in (
        Job("fold0", {}, 0, Pace(math.inf, follow=True, parts={"contrast": recorded})),
        Job("fold0", {}, 0, Pace(math.inf), tmp_path / "job"),  # goes on with what was left there
    ):
        same, found = run(again)
        assert same == steps
        assert all(torch.equal(found[name], weight) for name, weight in weights.items())
        assert again.replans == late.replans


def _contrast(bench: Workbench, net: Network) -> float:
    """The loss over all rows."""
    batch = bench.batch(np.arange(96))
    with torch.no_grad():
        state = network.masked_mean(network.last_state(net.body(**batch)), batch["attention_mask"])
    return float(contrast.loss(state, torch.from_numpy(bench.targets)))
