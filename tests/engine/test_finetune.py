"""The common course of the rungs that move the body: its plans, and what moves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_images import drawings, hf_backbone
from warmstart.core import registry
from warmstart.core.errors import CutRefused
from warmstart.engine import batch_norms, contrast, courses, finetune, training
from warmstart.engine.clock import Pace
from warmstart.engine.job import Fitted, Job
from warmstart.engine.predictor import NetworkPredictor
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench

TRAIN, HELD = np.arange(72), np.arange(72, 96)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def part(name: str, **options: Any) -> Any:
    return registry.create("strategies", name, options=options)


def fit(bench: Workbench, name: str, **options: Any) -> Fitted:
    strategy = part(name, **options)
    plan = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    fitted: Fitted = strategy.fit(bench, TRAIN, HELD, Job("fold0", plan.settings, 0, Pace(math.inf)))
    return fitted


def moved(bench: Workbench, fitted: Fitted) -> set[str]:
    """Names of the body's parameters that are no longer those of the backbone."""
    assert isinstance(fitted.predictor, NetworkPredictor)
    body = fitted.predictor.network.body
    plain = body if fitted.predictor.network.head is not None else getattr(body, str(body.base_model_prefix))
    before = dict(bench.backbone.model.named_parameters())
    return {name for name, p in plain.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("head", ["pooled", "native"])
def test_what_moves(head: str, bench: Workbench) -> None:
    options = {"head": head, "epochs": 2, "contrastive": 2}
    blocks = {name.split(".")[2] for name in moved(bench, fit(bench, "tail", blocks=2, **options)) if name.startswith("encoder")}
    assert blocks == {"1", "2"}
    assert not any(name.startswith("embeddings") for name in moved(bench, fit(bench, "tail", blocks=3, **options)))
    full = moved(bench, fit(bench, "full", **options))
    assert any(name.startswith("embeddings") for name in full)
    assert {name.split(".")[2] for name in full if name.startswith("encoder")} == {"0", "1", "2"}
    lora = moved(bench, fit(bench, "lora", **options))
    assert lora
    assert all(name.startswith("encoder") and name.endswith("weight") and "LayerNorm" not in name for name in lora)


def test_lora_leaves_an_ordinary_body_and_counts_what_moved(bench: Workbench) -> None:
    fitted = fit(bench, "lora", rank=4, epochs=1, contrastive=0)
    assert isinstance(fitted.predictor, NetworkPredictor)
    body = fitted.predictor.network.body
    assert body.state_dict().keys() == bench.backbone.model.state_dict().keys()
    assert not hasattr(body, "peft_config")
    adapters = 3 * 4 * (4 * (32 + 32) + 2 * (32 + 48))  # blocks, rank, four square matrices and two of the MLP
    head = fitted.predictor.network.head
    assert head is not None
    assert fitted.trainable == adapters + head.weight.numel() + head.bias.numel()


def test_a_plan_shrinks_with_the_time_and_ends(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = part("full", epochs=8, contrastive=0)

    def plan(seconds: float) -> Any:
        return strategy.plan(bench, train=TRAIN, held=HELD, seconds=seconds)

    whole = plan(math.inf)
    assert (whole.settings["epochs"], whole.shortened) == (8, False)
    assert not plan(whole.seconds + 0.01).shortened
    fixed = whole.seconds - 8 * (
        epoch := (whole.seconds - plan(whole.seconds * 0.9).seconds) / (8 - plan(whole.seconds * 0.9).settings["epochs"])
    )
    half = plan(fixed + 4 * epoch)
    assert half.shortened
    assert half.settings["epochs"] == pytest.approx(4, abs=0.1)
    assert half.seconds <= fixed + 4.1 * epoch
    assert plan(fixed + 0.95 * epoch) is None, "72 rows of three classes are fewer than 100 of each, so one pass is the least"
    monkeypatch.setattr(finetune, "SEEN", 10)
    assert plan(fixed + 0.5 * epoch).settings["epochs"] == pytest.approx(0.5, abs=0.1)
    assert plan(fixed + 0.38 * epoch) is None, "30 rows are 0.42 passes"
    monkeypatch.setattr(finetune, "SEEN", 1)
    assert plan(fixed + 0.9 * finetune.LEAST_EPOCHS * epoch) is None
    assert plan(0.0) is None


def test_a_plan_gives_up_epochs_before_contrastive_steps_and_their_rows_before_the_last_steps(bench: Workbench) -> None:
    strategy = part("full", epochs=2, contrastive=40)
    bench.measured |= {"forward": 0.01 / bench.mean_length}

    def plan(seconds: float) -> Any:
        return strategy.plan(bench, train=TRAIN, held=HELD, seconds=seconds)

    def course(seconds: float) -> tuple[float, int, int]:
        found = plan(seconds)
        assert found.seconds <= seconds
        settings = tuple(found.settings[name] for name in ("epochs", "contrastive", "contrastive_rows"))
        assert found.shortened == (settings != (2, 40, 64))
        return settings

    none = part("full", epochs=0, contrastive=40).plan(bench, train=TRAIN, held=HELD, seconds=math.inf).seconds
    step = (none - part("full", epochs=0, contrastive=20).plan(bench, train=TRAIN, held=HELD, seconds=math.inf).seconds) / 20
    whole = plan(math.inf).seconds
    assert course(whole + 0.01) == (2, 40, 64)
    assert course((whole + none) / 2) == (pytest.approx(1, abs=0.01), 40, 64)
    assert course(none + 0.1 * (whole - none)) == (0, 40, 64)
    assert course(none - 29.9 * step) == (0, 10, 64)
    assert course(none - 30.1 * step) == (0, 19, 32)
    assert course(none - 34.9 * step) == (0, 10, 32)
    assert plan(none - 35.1 * step) is None


def test_rows_that_are_embedded_twice_are_planned_so(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = part("full", epochs=0, contrastive=40)
    together = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf).seconds
    monkeypatch.setattr(contrast, "TOKENS", 50)
    apart = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf).seconds
    again = 40 * 64 * float(bench.lengths.mean()) * bench.forward_seconds()
    assert apart - together == pytest.approx(again, rel=1e-3)


def test_a_tail_that_starts_later_is_predicted_to_cost_less(bench: Workbench) -> None:
    bench.pooled(np.arange(96))
    seconds = [part("tail", blocks=b, contrastive=0).plan(bench, train=TRAIN, held=HELD, seconds=math.inf).seconds for b in (1, 2, 3)]
    assert seconds[0] < seconds[1]


def test_a_body_without_a_trunk_is_refused_by_name(bench: Workbench, tmp_path: Path) -> None:
    other = tiny_bench(tmp_path)
    other.backbone.trunk = None
    with pytest.raises(CutRefused, match="no list of blocks"):
        part("tail").plan(other, train=TRAIN, held=HELD, seconds=math.inf)


def test_the_contrastive_phase_is_for_few_rows_of_one_label(bench: Workbench) -> None:
    for n, steps in ((50, courses.CONTRASTIVE_STEPS), (5000, 0)):
        assert courses.course(bench, part("full").options, point=0, n_train=n).contrastive == steps
    assert courses.course(bench, part("full", head="native").options, point=0, n_train=50).contrastive == 0
    assert courses.course(bench, part("full", contrastive=7).options, point=0, n_train=5000).contrastive == 7


def test_more_rows_fewer_passes() -> None:
    assert [courses.epochs_for(n, after_contrast=False) for n in (10, 1920, 1_000_000)] == [8, 5, 3]
    assert [courses.epochs_for(n, after_contrast=True) for n in (100, 1920)] == [0, 5]


@pytest.fixture
def pictures(tmp_path: Path, bench: Workbench) -> Workbench:
    """24 drawings over a tiny ResNet, which has batch norms."""
    drawn, body = list(drawings(24, side=16)), hf_backbone("resnet", tmp_path / "body")
    modality, labels = registry.create("modalities", "image"), sorted({label for _, label in drawn})
    return dataclasses.replace(
        bench,
        inputs=modality.load([(pixels,) for pixels, _ in drawn], folder=tmp_path, body=body),
        targets=np.array([labels.index(label) for _, label in drawn]),
        labels=tuple(labels),
        modality=modality,
        backbone_name=str(body),
        measured={},
        probes={},
        hint_rows=np.arange(16),
    )


def hinted(pictures: Workbench, *, far: bool) -> Workbench:
    end = pictures.backbone.n_blocks
    pictures.hint = (tuple(range(end + 1)) if far else (end,), 1e-2)
    return pictures


def test_a_body_that_is_far_from_home_is_read_at_more_points_and_moves_faster(
    pictures: Workbench, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a convolutional body the probe's search tells; one without, as those for text, is read at its end whatever the probe says."""
    train = np.arange(16)
    for far, rate in ((False, courses.LR), (True, courses.ANEW_LR)):
        own = hinted(pictures, far=far)
        settings = part("full", contrastive=2).plan(own, train=train, held=train, seconds=math.inf).settings
        how = courses.Course(**settings)
        assert finetune.network_for(own, train, how, Job("final", settings, 0, Pace(math.inf))).head.points == own.hint[0]
        assert courses.rate(own, how, train) == rate
        assert courses.rate(own, dataclasses.replace(how, lr=0.5), train) == 0.5
    adapters = courses.course(own, part("lora").options, point=0, n_train=16, norms=False)
    assert courses.rate(own, adapters, train) == courses.FAR_LR
    monkeypatch.setattr(batch_norms, "LEAST_ROWS", 10_000)  # of images so large that few go through the body at once
    assert courses.rate(own, how, train) == courses.FAR_LR
    bench.hint = (tuple(range(bench.backbone.n_blocks + 1)), 1e-2)
    assert courses.first_points(bench, 72) == (bench.backbone.n_blocks,)


@pytest.mark.parametrize("name", ["full", "tail"])
def test_batch_norms_keep_their_statistics_at_home_and_take_those_of_the_data_far_from_it(name: str, pictures: Workbench) -> None:
    train = np.arange(16)
    options = {"epochs": 1, "contrastive": 2} | ({"blocks": 1} if name == "tail" else {})
    kept = [norm.running_mean.clone() for norm in batch_norms.among(pictures.backbone.model)]
    for far in (False, True):
        own, strategy = hinted(pictures, far=far), part(name, **options)
        plan = strategy.plan(own, train=train, held=train, seconds=math.inf)
        fitted = strategy.fit(own, train, train, Job("fold0", plan.settings, 0, Pace(math.inf)))
        body = fitted.predictor.network.body
        changed = [not torch.equal(n.running_mean, before) for n, before in zip(batch_norms.among(body), kept, strict=True)]
        assert any(changed) is far
        assert all(changed) is (far and name == "full")  # none below the cut
        assert not any(module.training for module in body.modules())


def test_far_from_home_passes_take_the_place_of_the_contrastive_phase(pictures: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "VERY_FEW", 10)
    train, end = np.arange(16), pictures.backbone.n_blocks
    for far in (False, True):
        own, strategy = hinted(pictures, far=far), part("full")
        plan = strategy.plan(own, train=train, held=train, seconds=math.inf)
        how = courses.suited(own, courses.Course(**plan.settings), train)
        assert (how.contrastive, how.epochs) == ((0, courses.ANEW_EPOCHS) if far else (courses.CONTRASTIVE_STEPS, 8))
        fitted = strategy.fit(own, train, train, Job("fold0", plan.settings, 0, Pace(math.inf)))
        assert fitted.predictor.network.head.points == (end,)
    asked = courses.course(hinted(pictures, far=True), part("full", contrastive=3).options, point=0, n_train=16)
    assert courses.suited(pictures, asked, train) == asked


def test_norms_settle_on_the_rows_that_are_given(pictures: Workbench) -> None:
    own = hinted(pictures, far=True)
    settings = part("full").plan(own, train=np.arange(16), held=np.arange(16), seconds=math.inf).settings
    net = finetune.network_for(own, np.arange(16), courses.Course(**settings), Job("final", settings, 0, Pace(math.inf)))
    first, seen = batch_norms.among(net.body)[0], []
    with torch.no_grad():
        hook = first.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
        net(own.batch(np.arange(16)))
        hook.remove()
        training.settle_norms(own, net, np.arange(16))
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, seen[0].var((0, 2, 3)))
