"""The objective rbm: its contract, its phases, and a body that says more than random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_bars import bars, patterns
from tiny_learner import assert_resumes
from tiny_worth import gains
from warmstart.core import registry
from warmstart.core.errors import BadOption, BudgetTooSmall
from warmstart.engine import loop, statistics, store
from warmstart.engine.learner import Setting
from warmstart.testing import check_objective, check_part


def _learner(folder: Path, data: Any = None, *, seconds: float | None = None, **options: Any) -> Any:
    part = registry.create("objectives", "rbm", options=options)
    return part.prepare(Setting(bars(400) if data is None else data, folder, seconds=seconds))


def _train(learner: Any, folder: Path) -> Any:
    return loop.run(learner, loop.How(folder, 0, torch.device("cpu"), torch.float32))


def test_part_and_contract(tmp_path: Path) -> None:
    check_part("objectives", "rbm")
    small = {"batch": "16", "steps": "4", "sweep": "1"}  # chains that persist are a state of their own: below
    check_objective("rbm", Setting(bars(60), tmp_path), options={**small, "hidden": "12,5", "linear_code": "true", "sparsity": "0.2"})
    check_objective("rbm", Setting(bars(60), tmp_path), options={**small, "hidden": "12", "k": "2"})
    check_objective("rbm", Setting(bars(60, channels=3), tmp_path), options={**small, "hidden": "9", "unroll": "true"})


def test_layers_are_learned_and_fine_tuned(tmp_path: Path) -> None:
    learner = _learner(tmp_path, hidden="24,10", batch=20, steps=150, finetune_steps=200)
    assert [phase.name for phase in learner.phases()] == ["layer 1 (64-24)", "layer 2 (24-10)", "fine-tuning"]
    before = learner.finish(learner.module)
    outcome = _train(learner, tmp_path)
    after = learner.finish(learner.module)
    assert outcome.steps == 15 + 15 + 200
    assert after["pseudo_likelihood"].low > before["pseudo_likelihood"].high
    assert after["log_likelihood"].low > before["log_likelihood"].high
    assert after["squared_error"].high < 0.8 * before["squared_error"].low
    assert [picture.pixels.isfinite().all() for picture in learner.pictures(learner.module)] == [True] * 3
    learner.save(tmp_path / "body")
    body = store.load_body(tmp_path / "body")
    x = torch.rand(3, 1, 8, 8)
    code = x.flatten(1)
    for layer in learner.module.encoder:
        code = torch.sigmoid(layer(code))
    assert torch.allclose(body(pixel_values=x)[0], code)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = {"hidden": "16,6", "batch": 20, "steps": 30, "finetune_steps": 20, "sweep": 3, "persistent": True}
    assert_resumes(lambda folder: _learner(folder, **options), _train, tmp_path, calls=27)


def test_units_follow_the_data(tmp_path: Path) -> None:
    assert _learner(tmp_path, steps=1).settings["visible"] == "bernoulli"
    colour = _learner(tmp_path, bars(40, channels=3), steps=1)
    assert colour.settings["visible"] == "gaussian"
    assert colour.batch(0, 0)[0].x.std() == pytest.approx(1.0, abs=0.2)
    vectors = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    assert _learner(tmp_path, vectors, steps=1).settings["visible"] == "gaussian"
    with pytest.raises(BadOption, match="gaussian"):
        _learner(tmp_path, vectors, steps=1, visible="bernoulli")


@pytest.mark.parametrize("sweep", [1, 10])
def test_every_kind_of_unit_learns_in_bfloat16(sweep: int, tmp_path: Path) -> None:
    options = {"hidden": "16,6", "linear_code": True, "steps": 20, "finetune_steps": 5, "sweep": sweep, "sparsity": 0.2}
    setting = Setting(bars(80, channels=3), tmp_path, precision=torch.bfloat16)
    learner = registry.create("objectives", "rbm", options=options).prepare(setting)
    loop.run(learner, loop.How(tmp_path, 0, torch.device("cpu"), torch.bfloat16))
    assert all(p.isfinite().all() for p in learner.module.parameters())
    assert len(learner.pictures(learner.module)) == 3


def test_the_dial(tmp_path: Path) -> None:
    setting = Setting(bars(300), tmp_path, size="small")
    small = registry.create("objectives", "rbm", options={"batch": 27}).prepare(setting)
    assert small.settings["layers"] == [500, 250]
    assert small.settings["steps"] == 20 * 10
    timed = _learner(tmp_path, seconds=2.0, hidden="32")
    assert 0 < timed.plan.seconds <= 2.1
    assert timed.settings["steps"] % 10 == 0
    assert timed.settings["steps"] <= 200 * timed.per_pass
    with pytest.raises(BudgetTooSmall):
        _learner(tmp_path, seconds=1e-6)
    with pytest.raises(BadOption, match="hidden"):
        _learner(tmp_path, hidden="10,x")


def test_without_steps_the_body_is_as_torch_begins_it(tmp_path: Path) -> None:
    learner = _learner(tmp_path, hidden="12", steps=0)
    _train(learner, tmp_path)
    learner.save(tmp_path / "body")
    weight = store.load_body(tmp_path / "body").layers[0].linear.weight  # type: ignore[union-attr, index]
    assert float(weight.detach().abs().max()) == pytest.approx(1 / 8, abs=0.01)  # uniform within 1 / sqrt(64)


def test_many_processes_run_the_same_persistent_chains(tmp_path: Path) -> None:
    learner = _learner(tmp_path, hidden="12", steps=5, batch=21, persistent=True, sweep=1)
    part, settings = registry.create("objectives", "rbm"), learner.settings
    others = [part.prepare(replace(learner.setting, settings=settings, rank=rank, world=2)) for rank in range(2)]
    for one in (learner, *others):
        one.learn(one.module, 0, one.batch(0, 0))
    whole, *halves = (one.module.machines[0] for one in (learner, *others))
    assert torch.equal(whole.chain, halves[0].chain)
    assert torch.equal(whole.chain, halves[1].chain)
    assert torch.allclose((halves[0].weight.grad + halves[1].weight.grad) / 2, whole.weight.grad, atol=1e-6)


def test_a_pretrained_body_is_worth_more_than_the_same_at_random(tmp_path: Path) -> None:
    """Two labels a class, ten draws, a linear classifier on the code: are noisy patterns told apart?"""
    (images, labels), codes = patterns(500, seed=1), []
    for steps in (0, 600):
        learner = _learner(tmp_path, patterns(800)[0], hidden="24", steps=steps, lr=0.1, batch=20)
        _train(learner, tmp_path / str(steps))
        learner.save(tmp_path / "body")
        with torch.no_grad():
            codes.append(store.load_body(tmp_path / "body")(pixel_values=torch.from_numpy(images)[:, None] / 255)[0].numpy())
    low, _ = statistics.mean_interval(gains(codes, labels), bounds=(-1.0, 1.0))
    assert low > 0.05


def test_the_plan_counts_the_units_of_a_step(tmp_path: Path) -> None:
    few, many = (_learner(tmp_path, hidden="12,6", batch=batch, steps=0).plan.memory_bytes for batch in (8, 16))
    assert many - few == 16 * 8 * (64 + 12 + 6)
