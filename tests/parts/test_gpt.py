"""The objective gpt: its learner, its dial, continued pre-training, bad input."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from warmstart import testing
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, BudgetTooSmall, DataError
from warmstart.engine import causal_learner, causal_plan, dial, generation, loop, store
from warmstart.engine.learner import Setting

TINY = {"width": 16, "depth": 2, "heads": 2, "context": 8, "batch": 6, "steps": 3, "tokenizer": "characters"}


def _text(sentences: int = 60) -> str:
    nouns, verbs = ("cat", "dog", "bird", "king"), ("sees", "hears", "calls")
    found = [f"the {a} {verb} the {b}." for a, verb, b in itertools.product(nouns, verbs, nouns)]
    return "\n".join(found[i * 29 % len(found)] for i in range(sentences))


def _learner(folder: Path, data: Any = None, *, setting: dict[str, Any] | None = None, **options: Any) -> Any:
    part = registry.create("objectives", "gpt", options={**TINY, **options})
    return part.prepare(Setting(data=[_text()] if data is None else data, folder=folder, **(setting or {})))


def _gradients(learner: Any, step: int) -> list[torch.Tensor]:
    learner.module.zero_grad()
    learner.learn(learner.module, 0, learner.batch(0, step))
    return [p.grad.clone() for p in learner.module.parameters()]


def test_shares_of_several_processes_add_up(tmp_path: Path) -> None:
    alone = _learner(tmp_path)
    whole = _gradients(alone, 2)
    shares = []
    for rank in range(4):  # 6 windows by 4 processes: shares of different size
        setting = {"rank": rank, "world": 4, "settings": alone.settings}
        shares.append(_gradients(_learner(tmp_path, setting=setting), 2))
    for expected, *found in zip(whole, *shares, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=1e-5, atol=1e-6)


def test_the_contract(tmp_path: Path) -> None:
    testing.check_objective("gpt", Setting(data=[_text()], folder=tmp_path), options=TINY)


def test_settings_make_the_same_learner_again(tmp_path: Path) -> None:
    first = _learner(tmp_path / "a")
    part = registry.create("objectives", "gpt", options={})
    second = part.prepare(Setting(data=[_text()], folder=tmp_path / "b", settings=first.settings))
    assert second.settings == first.settings
    assert second.plan == first.plan
    assert torch.equal(first.batch(0, 7), second.batch(0, 7))
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"tokenizer": "bpe", "vocabulary": 300},
        {"optimizer": "adamw", "positions": "learned", "mlp": "gelu", "qk_norm": False, "tied": False},
    ],
)
def test_training_lowers_the_loss_and_the_folder_opens_everywhere(tmp_path: Path, options: dict[str, Any]) -> None:
    learner = _learner(tmp_path / "work", steps=60, muon_lr=0.02, lr=0.01, **options)
    before = learner.finish(learner.module)["validation_loss"]
    loop.run(learner, loop.How(tmp_path / "work", seed=0, device=torch.device("cpu"), precision=torch.float32))
    after = learner.finish(learner.module)
    assert after["validation_loss"].high < 0.7 * before.low
    assert after["bits_per_character"].low <= after["bits_per_character"].value <= after["bits_per_character"].high
    learner.save(tmp_path / "body")
    ids = learner.batch(0, 0)[:, :-1]
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "body").eval()
    with torch.no_grad():
        states = learner.module.states(ids)
        torch.testing.assert_close(whole(input_ids=ids).logits, whole.get_output_embeddings()(states), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(store.load_body(tmp_path / "body")(input_ids=ids).last_hidden_state, states, rtol=1e-4, atol=1e-4)
    assert "the" in "".join(learner.samples(learner.module))
    assert len(generation.generate(tmp_path / "body", "the cat", sampling=generation.Sampling(max_tokens=5))) >= 1


def test_the_loss_is_that_of_the_held_out_windows(tmp_path: Path) -> None:
    learner = _learner(tmp_path)
    rows = learner.held.rows()
    with torch.no_grad():
        logits = learner.module.model(input_ids=rows[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    metrics = learner.finish(learner.module)
    assert metrics["validation_loss"].value == pytest.approx(float(expected), rel=1e-5)
    assert metrics["validation_loss"].n == len(rows)
    held = learner.data.files["held"]
    assert metrics["bits_per_character"].value == pytest.approx(float(expected) / np.log(2) * len(held.tokens) / held.characters, rel=1e-5)


def test_the_last_measure_stays_a_small_part_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner(tmp_path, [_text(2000)], context=8, batch=4, steps=60)  # learns from 1,920 tokens
    monkeypatch.setattr(causal_learner, "LEAST_FINAL", 64)
    assert learner.finish(learner.module)["validation_loss"].n == 192 // 8
    learner.settings["steps"] = 1
    assert learner.finish(learner.module)["validation_loss"].n == 64 // 8


def test_a_pretrained_body_is_gone_on_from_with_its_vocabulary(tmp_path: Path) -> None:
    first = _learner(tmp_path / "first")
    first.save(tmp_path / "body")
    options = registry.create("objectives", "gpt", options={"steps": 2, "batch": 4})
    second = options.prepare(Setting(data=[_text(40)], folder=tmp_path / "second", start=tmp_path / "body"))
    assert second.settings["context"] == 8
    assert second.settings["muon_lr"] < 0.01
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    second.save(tmp_path / "again")
    before, after = (transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("body", "again"))
    assert before.get_vocab() == after.get_vocab()
    with pytest.raises(BadOption, match="beside a body"):
        registry.create("objectives", "gpt", options={"width": 32}).prepare(
            Setting(data=[_text()], folder=tmp_path / "third", start=tmp_path / "body")
        )


def test_only_a_causal_body_is_gone_on_from(tmp_path: Path, backbone: Path) -> None:
    part = registry.create("objectives", "gpt", options={})
    with pytest.raises(BackboneNotFound, match="no causal language model"):
        part.prepare(Setting(data=[_text()], folder=tmp_path, start=backbone))


def test_the_dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"depth": 1, "context": 16, "tokens": 64}
    shapes = {name: dataclasses.replace(causal_plan.SIZES[name], width=width, **small) for name, width in (("tiny", 16), ("small", 32))}
    monkeypatch.setattr(causal_plan, "SIZES", shapes)
    part = registry.create("objectives", "gpt", options={"tokenizer": "characters"})

    def planned(**dial: Any) -> Any:
        return part.prepare(Setting(data=[_text()], folder=tmp_path, **dial))

    sized, timed = planned(size="tiny"), planned(seconds=3600.0)
    assert sized.module.model.config.hidden_size == 16
    assert sized.plan.steps == pytest.approx(4 * sized.train.length / 64, abs=1)  # four passes
    assert sized.plan.seconds > 0
    assert timed.module.model.config.hidden_size == 32
    assert timed.plan.steps == pytest.approx(16 * timed.train.length / 64, abs=1)
    with pytest.raises(BudgetTooSmall, match="steps"):
        planned(seconds=1e-4)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        _learner(tmp_path, ["", "  "])
    with pytest.raises(DataError):
        _learner(tmp_path, ["a"])
    short = _learner(tmp_path, ["abcd efgh. " * 2], context=100, held=0.3)
    assert short.settings["context"] < 10
    for name, value in {"context": 1, "batch": 0, "held": 1.0}.items():
        with pytest.raises(BadOption, match=name):
            _learner(tmp_path, **{name: value})


def test_characters_that_validation_data_have_alone_are_counted(tmp_path: Path) -> None:
    learner = _learner(tmp_path, setting={"validation": ["the cat sees 42 \u00e9\u00e8."]})
    assert any("4 tokens stand for something" in note for note in learner.corpus.notes)


def test_replacing_settings_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner(tmp_path)
    monkeypatch.setattr(dial, "seconds_per_step", lambda *_, **__: pytest.fail("measured"))
    again = registry.create("objectives", "gpt", options=TINY).prepare(dataclasses.replace(learner.setting, settings=learner.settings))
    assert again.plan == learner.plan
