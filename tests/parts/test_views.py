"""The objectives ``supervised`` and ``contrastive`` keep the contract, learn, and leave a body that opens."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warmstart import testing
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, BudgetTooSmall, DataError, InputError
from warmstart.engine import loop, seeds, store, views
from warmstart.engine.learner import Setting

IMAGE = {"width": 4, "norm": "group", "batch": 16, "steps": 3}
TEXT = {"width": 32, "depth": 1, "batch": 8, "steps": 3, "vocabulary": 120, "max_length": 16}


def _images(n: int = 80) -> dict[str, Any]:
    """Bright squares in one of two places, which is the label."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = random.integers(0, 120, (n, 16, 16, 3), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i, 2:8, 4:12] += np.uint8(120 * label)
    return {"image": images, "label": ["ab"[i] for i in labels]}


def _texts(folder: Path, n: int = 80) -> Path:
    lines = [f"{row['text']},{row['label']}" for row in testing.rows(n)]
    path = folder / "rows.csv"
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


def _prepared(name: str, setting: Setting, **options: Any) -> Any:
    return registry.create("objectives", name, options=options).prepare(setting)


def _run(learner: Any, folder: Path) -> loop.Outcome:
    setting = learner.stream.setting
    return loop.run(learner, loop.How(folder / "run", 0, setting.device, setting.precision))


@pytest.mark.parametrize(("mixup", "family"), [(0.0, "convnet"), (0.5, "convnet"), (0.0, "vgg")])
def test_supervised_images_keep_the_contract(mixup: float, family: str, tmp_path: Path) -> None:
    options = {**IMAGE, "mixup": mixup, "augment": "strong", "family": family}
    testing.check_objective("supervised", Setting(data=_images(), folder=tmp_path), options=options)


def test_supervised_texts_keep_the_contract(tmp_path: Path) -> None:
    start = testing.tiny_backbone(tmp_path / "start")
    config = store.read_config(start)
    store.write_json(start / "config.json", {**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    options = {name: value for name, value in TEXT.items() if name not in ("width", "depth")}
    testing.check_objective("supervised", Setting(data=_texts(tmp_path), folder=tmp_path, start=start), options=options)


def test_supervised_learns_images_and_a_probe_says_so(tmp_path: Path) -> None:
    setting = Setting(data=_images(240), folder=tmp_path)
    learner = _prepared("supervised", setting, **{**IMAGE, "norm": "batch", "steps": 60, "augment": "none"})
    outcome = _run(learner, tmp_path)
    measured = learner.finish(learner.module)
    assert measured["validation_accuracy"].value > 0.9
    assert measured["probe_accuracy"].value > 0.9
    assert outcome.history.curve("validation/probe_accuracy")[1]
    assert outcome.history.curve("loss")[1][-1] < 0.5
    (picture,) = learner.pictures(learner.module)
    assert picture.pixels.shape == (48, 128, 3)
    learner.save(tmp_path / "body")
    again = _prepared("supervised", dataclasses.replace(setting, start=tmp_path / "body"), steps=1, batch=16)
    assert torch.equal(again.module.body.stages[0].layers[0].weight, learner.module.body.stages[0].layers[0].weight)
    assert again.settings["mean"] == learner.settings["mean"]
    assert again.settings["lr"] < learner.settings["lr"]


def test_supervised_learns_texts_from_scratch(tmp_path: Path) -> None:
    learner = _prepared("supervised", Setting(data=_texts(tmp_path, 240), folder=tmp_path), **{**TEXT, "steps": 60})
    _run(learner, tmp_path)
    assert learner.finish(learner.module)["validation_accuracy"].value > 0.7
    learner.save(tmp_path / "body")
    assert (tmp_path / "body" / "tokenizer.json").is_file()
    assert type(store.load_body(tmp_path / "body")).__name__ == "BertModel"


def test_contrastive_images_learn_what_labels_would_say(tmp_path: Path) -> None:
    setting = Setting(data=_images(), folder=tmp_path)
    learner = _prepared("contrastive", setting, **{**IMAGE, "norm": "batch", "steps": 20, "crop": 0.5})
    outcome = _run(learner, tmp_path)
    losses = outcome.history.curve("loss")[1]
    measured = learner.finish(learner.module)
    assert losses[-1] < losses[0]
    assert set(measured) == {"validation_loss", "alignment", "uniformity", "probe_accuracy"}
    assert all(m.low <= m.value <= m.high < float("inf") for m in measured.values())
    learner.save(tmp_path / "body")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(store.load_body(tmp_path / "body")(pixel_values=x)[0], learner.module.body.eval()(pixel_values=x)[0])


def test_contrastive_shares_are_the_whole_batch(tmp_path: Path) -> None:
    setting = Setting(data=_images(), folder=tmp_path)
    whole = _prepared("contrastive", setting, **IMAGE)
    parts = [
        _prepared("contrastive", dataclasses.replace(setting, settings=whole.settings, rank=rank, world=2), **IMAGE) for rank in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(whole.module.parameters(), parts[0].module.parameters(), strict=True))
    joined = torch.stack([part.batch(0, 2)["pixel_values"].unflatten(0, (2, 8)) for part in parts], dim=2)
    assert torch.allclose(joined.flatten(1, 2).flatten(0, 1), whole.batch(0, 2)["pixel_values"], atol=1e-6)


def test_simcse_makes_two_views_by_dropout_and_goes_on_from_a_body(tmp_path: Path) -> None:
    start = testing.tiny_backbone(tmp_path / "start")
    setting = Setting(data=[row["text"] for row in testing.rows(64)], folder=tmp_path, start=start)
    learner = _prepared("contrastive", setting, batch=8, steps=4, max_length=16, lr=1e-3)
    assert learner.loss is views.contrastive.info_nce
    batch = learner.batch(0, 0)
    assert torch.equal(*batch["input_ids"].chunk(2))
    with seeds.seeded(0):
        first, second = learner.module.train()(batch).chunk(2)
    assert not torch.allclose(first, second, atol=1e-3)
    before = [p.clone() for p in learner.module.body.encoder.parameters()]
    _run(learner, tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.module.body.encoder.parameters(), strict=True))
    measured = learner.finish(learner.module)
    assert measured["alignment"].value > 0
    assert "probe_accuracy" not in measured
    learner.save(tmp_path / "body")
    assert store.read_config(tmp_path / "body")["num_hidden_layers"] == 3
    assert (tmp_path / "body" / "tokenizer.json").is_file()


def test_simcse_from_scratch_probes_where_there_are_labels(tmp_path: Path) -> None:
    learner = _prepared("contrastive", Setting(data=_texts(tmp_path), folder=tmp_path), **TEXT)
    assert "probe_accuracy" in learner.validate(learner.module.eval(), 0)
    again = _prepared("contrastive", Setting(data=_texts(tmp_path), folder=tmp_path, settings=learner.settings), **TEXT)
    assert all(torch.equal(a, b) for a, b in zip(learner.module.parameters(), again.module.parameters(), strict=True))


def test_a_budget_decides_size_and_steps(tmp_path: Path) -> None:
    learner = _prepared("supervised", Setting(data=_images(), folder=tmp_path, seconds=5.0), batch=16, width=4)
    assert 5 <= learner.settings["steps"] <= 400
    assert learner.plan.seconds <= 5
    (phase,) = learner.phases()
    assert phase.most >= phase.steps, "where steps turn out quicker"
    again = _prepared("supervised", Setting(data=_images(), folder=tmp_path, settings=learner.settings), batch=16, width=4)
    assert again.phases() == [phase]
    assert _prepared("supervised", Setting(data=_images(), folder=tmp_path, seconds=5.0), **IMAGE).phases()[0].most == 0
    with pytest.raises(BudgetTooSmall):
        _prepared("supervised", Setting(data=_images(), folder=tmp_path, seconds=1e-4), batch=16)


def test_no_steps_give_the_body_at_random(tmp_path: Path) -> None:
    learner = _prepared("supervised", Setting(data=_images(), folder=tmp_path), **{**IMAGE, "steps": 0})
    before = {name: value.clone() for name, value in learner.module.state_dict().items()}
    assert _run(learner, tmp_path).steps == 0
    assert all(torch.equal(value, before[name]) for name, value in learner.module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "data", "options", "error"),
    [
        ("supervised", {"image": _images()["image"]}, {}, InputError),
        ("supervised", {"image": _images()["image"], "label": ["a"] * 80}, {}, DataError),
        ("supervised", _images(), {"mixup": 2.0}, BadOption),
        ("supervised", _images(), {"family": "nonsense"}, BadOption),
        ("contrastive", _images(), {"temperature": 0.0}, BadOption),
        ("contrastive", _images(), {"batch": 1}, BadOption),
        ("contrastive", ["one text"], {}, DataError),
    ],
)
def test_bad_input_is_refused(name: str, data: Any, options: dict[str, Any], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        _prepared(name, Setting(data=data, folder=tmp_path), **{"steps": 1, **options})


def test_a_body_for_text_is_no_start_for_images(tmp_path: Path) -> None:
    with pytest.raises(BackboneNotFound):
        _prepared("supervised", Setting(data=_images(), folder=tmp_path, start=testing.tiny_backbone(tmp_path / "text")), steps=1)
