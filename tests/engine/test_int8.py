"""Eight-bit products: close to the float ones, one token at a time, and taken only where the probe does not lose by them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tiny_models import tiny_batch, tiny_model
from warmstart import testing
from warmstart.core.errors import BadOption
from warmstart.core.recipe import Recipe
from warmstart.core.report import Comparison
from warmstart.engine import clock, device, int8, int8_trial, ladder, network, packed
from warmstart.engine.workbench import Workbench

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not device.has_int8(CPU), reason="the processor has no AVX-512 VNNI")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    found = testing.tiny_bench(tmp_path)
    found.precision = device.computing(torch.int8, CPU)
    return found


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_close_to_the_float_products(dtype: torch.dtype) -> None:
    plain = tiny_model("bert").to(dtype).eval()
    eight, batch = int8.quantise(copy.deepcopy(plain)), tiny_batch("bert")
    found, expected = network.last_state(eight(**batch)).float(), network.last_state(plain(**batch)).float()
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).mean() > 0.99
    assert not torch.equal(found, expected)
    assert list(eight.state_dict()) == list(plain.state_dict())


@needs_int8
@torch.inference_mode()
def test_a_token_depends_on_itself_alone() -> None:
    torch.manual_seed(0)
    body = tiny_model("bert").eval()
    layer = int8.layers(int8.quantise(body))[0]
    x = torch.randn(3, 5, layer.in_features)
    x[2] *= 1000
    assert torch.equal(layer(x)[:2], layer(x[:2]))
    assert torch.equal(layer(torch.zeros(1, layer.in_features))[0], layer.bias)
    before = x.clone()
    layer(x)
    assert torch.equal(x, before)


def test_only_the_blocks_change() -> None:
    body = tiny_model("bert")
    assert len(int8.layers(body)) == 4 * 6
    assert body.pooler.dense not in int8.layers(body)
    assert int8.layers(nn.Embedding(3, 3)) == []


@needs_int8
def test_states_in_eight_bits_have_a_shelf_of_their_own(bench: Workbench) -> None:
    rows = np.arange(96)
    exact = bench.pooled(rows)
    bench.int8 = True
    eight = bench.pooled(rows)
    assert not torch.equal(eight, exact)
    assert torch.nn.functional.cosine_similarity(eight, exact, dim=-1)[:, 0].min() > 0.9999
    assert torch.equal(bench.pooled(rows[:5]), eight[:5])
    bench.prepare(rows[:6], 1)  # what a tail starts from is not in eight bits
    bench.int8 = False
    assert torch.equal(bench.pooled(rows), exact)
    assert torch.equal(bench.lower(rows[:6], 1), exact[:6, :1])


@needs_int8
def test_a_probe_predicts_in_what_it_was_fitted_on(bench: Workbench, tmp_path: Path) -> None:
    from warmstart.core import registry
    from warmstart.engine.job import Job

    bench.int8 = True
    part = registry.create("strategies", "linear_probe")
    fitted = part.fit(bench, np.arange(72), np.arange(72, 96), Job("final", {"rows": 72}, 0, clock.Pace(60)))
    values = [bench.inputs[i] for i in range(72, 96)]
    np.testing.assert_allclose(fitted.predictor.logits(values), fitted.held_logits, atol=1e-4)
    fitted.predictor.save(tmp_path / "saved", labels=bench.labels, temperature=1.0)
    how = {"modality": bench.modality, "device": CPU, "max_length": bench.max_length}
    loaded = registry.module("strategies", "linear_probe").load(tmp_path / "saved", precision=bench.serving_precision(part), **how)
    np.testing.assert_array_equal(loaded.logits(values), fitted.predictor.logits(values))
    assert bench.serving_precision(registry.create("strategies", "tail")) == bench.precision


@pytest.mark.parametrize(
    ("difference", "low", "high", "taken"),
    [
        (0.0, 0.0, 0.0, True),
        (0.01, -0.01, 0.03, True),
        (-0.004, -0.01, 0.002, True),
        (-0.004, -0.006, -0.002, False),
        (-0.02, -0.05, 0.01, False),
    ],
)
def test_the_rule(difference: float, low: float, high: float, taken: bool) -> None:
    found = int8_trial.judge(
        Comparison("int8", "bfloat16", difference, low, high, 800, "compared"), {"bfloat16": 0.8, "int8": 0.8 + difference}
    )
    assert found.taken is taken
    assert ("int8 was taken" if taken else "not taken but bfloat16") in found.sentence
    assert "800 held-out rows" in found.sentence


@needs_int8
def test_a_trial_is_measured_once(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    climb = ladder.Ladder(bench, [(np.arange(72), np.arange(72, 96))], clock.Clock(600), tmp_path / "work")
    recipe = Recipe(precision="int8")
    few = int8_trial.decide(recipe, climb)
    assert few is not None
    assert not few.taken
    assert "100 held-out rows" in few.sentence
    monkeypatch.setattr(int8_trial, "FEWEST", 10)
    assert int8_trial.decide(recipe, climb) == few  # an interrupted run had decided
    climb.folder = tmp_path / "anew"
    measured = int8_trial.decide(recipe, climb)
    assert measured is not None
    assert "24 held-out rows" in measured.sentence
    assert bench.int8 is measured.taken
    followed = Recipe(precision="int8", plan={"int8": {"taken": True, "sentence": "as planned"}})
    assert int8_trial.decide(followed, climb) == int8_trial.Trial(True, "as planned")
    assert bench.int8
    assert int8_trial.decide(Recipe(), climb) is None


def test_refused_where_bytes_are_not_multiplied_natively() -> None:
    with pytest.raises(BadOption, match="int8"):
        device.dtype("int8", torch.device("meta"))
    assert device.computing(torch.int8, CPU) in (torch.float32, torch.bfloat16)
    assert packed.prepare(nn.Linear(2, 2), torch.float32).weight.dtype == torch.float32
