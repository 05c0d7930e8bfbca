"""The objective bert: its mathematics, its contract, what it saves, and what it goes on from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import tiny_model
from tiny_worth import gains, text_states
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, BudgetTooSmall, DataError
from warmstart.engine import loop, masked_model, statistics, store, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.learner import Setting
from warmstart.engine.masked_model import MaskedModel
from warmstart.testing import WORDS, check_objective, rows

SMALL = {"width": 32, "depth": 2, "heads": 2, "context": 32, "batch": 512, "at_once": 256, "steps": 12}


def story(random: np.random.Generator) -> str:
    """A document of a few sentences about one thing."""
    subject = WORDS[str(random.choice(list(WORDS)))]
    return " ".join(f"{' '.join(random.choice(subject, int(random.integers(3, 9))))}.".capitalize() for _ in range(random.integers(2, 8)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    path.write_text("\n\n".join(story(random) for _ in range(150)))
    return path


def prepare(setting: Setting, **options: Any) -> Any:
    return registry.create("objectives", "bert", options={**SMALL, **options}).prepare(setting)


@pytest.mark.parametrize("options", [{"second": "nsp"}, {"second": "sop", "whole_word": True}, {"second": "none", "mask": 0.4}])
def test_the_contract(corpus: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    check_objective("bert", Setting(data=corpus, folder=tmp_path), options={**SMALL, **options})
    learner = prepare(Setting(data=corpus, folder=tmp_path), **options)
    assert learner.settings["second"] == options["second"]
    assert ("follows" in learner.batch(0, 0).parts[0]) == (options["second"] != "none")


def test_the_loss_is_that_of_transformers_at_the_masked_positions(corpus: Path, tmp_path: Path) -> None:
    learner = prepare(Setting(data=corpus, folder=tmp_path), at_once=100_000)
    (part,) = (batch := learner.batch(0, 3)).parts
    labels = torch.full_like(part["input_ids"], -100)
    labels.view(-1)[part["positions"]] = part["targets"]
    assert batch.masked == len(part["positions"]) == len(part["targets"])
    assert batch.tokens == part["attention_mask"].sum()
    learner.module.eval()
    found = learner.learn(learner.module, 0, batch)
    with learner.module.whole() as model:
        out = model(
            input_ids=part["input_ids"], token_type_ids=part["token_type_ids"], attention_mask=part["attention_mask"], labels=labels,
            next_sentence_label=part["follows"],
        )  # fmt: skip
    assert found["loss"].item() == pytest.approx(out.loss.item(), rel=1e-5)
    assert found["loss"] == found["mlm"] + found["nsp"]


def test_it_starts_at_the_frequencies_of_words_and_learns(corpus: Path, tmp_path: Path) -> None:
    learner = prepare(Setting(data=corpus, folder=tmp_path), steps=60, lr=1e-2, depth=1, second="nsp")
    tokens = learner._train.tokens
    shares = np.bincount(tokens) / len(tokens)
    entropy = -sum(p * math.log(p) for p in shares if p)
    before = learner.validate(learner.module, 0)
    assert before["mlm"] == pytest.approx(entropy, abs=0.3)
    outcome = loop.run(learner, loop.How(folder=tmp_path / "run", seed=0, device=torch.device("cpu"), precision=torch.float32))
    after = learner.finish(learner.module)
    assert outcome.steps == 60
    assert after["mlm_loss"].value < before["mlm"] - 0.4  # which subject it is
    assert after["perplexity"].value == pytest.approx(math.exp(after["mlm_loss"].value))
    assert after["mlm_accuracy"].high > after["mlm_accuracy"].value > before["mlm_accuracy"]
    assert after["nsp_accuracy"].n > 0
    assert any("[" in sample and "/" in sample for sample in learner.samples(learner.module))


def test_shares_of_the_loss_average_to_the_whole_whatever_they_hold(corpus: Path, tmp_path: Path) -> None:
    setting = Setting(data=corpus, folder=tmp_path)
    whole = prepare(setting)
    shares = [prepare(Setting(data=corpus, folder=tmp_path, rank=rank, world=3)) for rank in range(3)]
    losses = [share.learn(share.module, 0, share.batch(0, 1))["loss"].item() for share in shares]
    assert np.mean(losses) == pytest.approx(whole.learn(whole.module, 0, whole.batch(0, 1))["loss"].item(), rel=1e-5)
    assert sum(share.count(share.batch(0, 1)) for share in shares) == whole.count(whole.batch(0, 1))
    many = [prepare(Setting(data=corpus, folder=tmp_path, rank=rank, world=400)) for rank in (0, 399)]
    idle = many[1].batch(0, 1)
    assert idle.masked == many[0].batch(0, 1).masked
    assert many[1].learn(many[1].module, 0, idle)["loss"] == 0  # nothing to do, but the same gradients as the others


def test_no_more_is_computed_than_needed(corpus: Path, tmp_path: Path) -> None:
    learner = prepare(Setting(data=corpus, folder=tmp_path), batch=2048)
    batches = [learner.batch(0, step) for step in range(4)]
    computed = sum(part["input_ids"].numel() for batch in batches for part in batch.parts)
    assert computed < 1.15 * sum(batch.tokens for batch in batches)
    assert max(part["input_ids"].numel() for batch in batches for part in batch.parts) <= 256


@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra", "mpnet", "deberta_v2", "modernbert", "albert"])
def test_going_on_from_any_masked_model(corpus: Path, tmp_path: Path, name: str) -> None:
    tokenizer = vocabulary.train(Texts(corpus), kind="wordpiece", size=90, lowercase=True)
    body = tiny_model(name)
    store.save_transformers(body, tmp_path / "body")
    vocabulary.save(tokenizer, tmp_path / "body", max_length=32)
    options = {"steps": 2, "batch": 256, "context": 24}
    part = registry.create("objectives", "bert", options=options)
    learner = part.prepare(Setting(data=corpus, folder=tmp_path / "work", start=tmp_path / "body"))
    typed = name in ("roberta", "electra", "albert")
    assert (learner.settings["second"] != "none") == typed
    assert any("no second task" in note for note in learner.corpus.notes) != typed
    assert any("begins at the embeddings" in note for note in learner.corpus.notes)
    before = learner.module.body.state_dict()
    for key, value in body.state_dict().items():
        torch.testing.assert_close(before[key], value)
    outcome = loop.run(learner, loop.How(folder=tmp_path / "run", seed=0, device=torch.device("cpu"), precision=torch.float32))
    assert outcome.steps == 2
    learner.save(tmp_path / "out")
    opened = store.load_body(tmp_path / "out")
    for key, value in learner.module.body.state_dict().items():
        torch.testing.assert_close(opened.state_dict()[key], value)
    again = part.prepare(Setting(data=corpus, folder=tmp_path / "work2", start=tmp_path / "out"))
    assert not any("begins at the embeddings" in note for note in again.corpus.notes)
    part_of = learner.batch(0, 5).parts[0]
    part_of.pop("follows", None)
    with torch.no_grad():
        words = [found.module.eval()(**part_of)["words"] for found in (learner, again)]
    torch.testing.assert_close(*words)


def test_bert_goes_on_with_both_its_heads(corpus: Path, tmp_path: Path) -> None:
    first = prepare(Setting(data=corpus, folder=tmp_path))
    first.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["BertForPreTraining"]
    second = registry.create("objectives", "bert", options={"steps": 1}).prepare(
        Setting(data=corpus, folder=tmp_path / "work", start=tmp_path / "out")
    )
    ours, theirs = first.module.state_dict(), second.module.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value)
    assert second.settings["context"] == 32
    word = first.module.head.cls.predictions.decoder.weight
    assert word is first.module.body.embeddings.word_embeddings.weight


def test_steps_zero_saves_random_weights(corpus: Path, tmp_path: Path) -> None:
    learner = prepare(Setting(data=corpus, folder=tmp_path), steps=0)
    assert (learner.plan.steps, learner.plan.seconds) == (0, 0.0)


def test_a_frozen_part_stays_out_without_a_second_task() -> None:
    model = MaskedModel(
        masked_model.fresh(vocabulary=64, width=32, depth=1, heads=2, context=16, pad=0), second=False
    )  # fmt: skip
    names = [name for name, _ in model.moved(second=False)]
    assert not any("pooler" in name or "seq_relationship" in name for name in names)
    assert len(names) < len(model.moved(second=True))


def test_the_dial(corpus: Path, tmp_path: Path) -> None:
    wanted = registry.create("objectives", "bert", options={"width": 32, "depth": 1, "context": 32, "batch": 256})
    free = wanted.prepare(Setting(data=corpus, folder=tmp_path))
    assert free.plan.steps <= 40 * free.steps_per_epoch
    assert free.plan.seconds > 0
    assert free.plan.memory_bytes > 16 * free.plan.parameters
    short = wanted.prepare(Setting(data=corpus, folder=tmp_path, seconds=20.0))
    assert 5 <= short.plan.steps <= 400 * short.steps_per_epoch
    assert short.plan.seconds <= 20.0
    hurried = registry.create("objectives", "bert", options={"width": 32, "depth": 1, "context": 32})
    fast = hurried.prepare(Setting(data=corpus, folder=tmp_path, seconds=10.0)).settings  # smaller steps rather than few
    assert fast["batch"] in (1024, 2048, 4096)
    assert fast["batch"] == 1024 or 200 * fast["seconds_per_step"] <= 10.0
    with pytest.raises(BudgetTooSmall, match="enough for 0 steps"):
        wanted.prepare(Setting(data=corpus, folder=tmp_path, seconds=1e-6))
    tiny = registry.create("objectives", "bert", options={"steps": 1}).prepare(Setting(data=corpus, folder=tmp_path, size="tiny"))
    assert (tiny.settings["width"], tiny.settings["depth"]) == (128, 2)


def test_single_sentences_have_no_second_task(tmp_path: Path) -> None:
    learner = prepare(Setting(data=[f"only {'word ' * (i % 7)}number {i}" for i in range(60)], folder=tmp_path))
    assert learner.settings["second"] == "none"
    assert set(learner.learn(learner.module, 0, learner.batch(0, 0))) == {"loss", "mlm"}


def test_validation_may_be_given_and_one_document_is_enough(corpus: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_text(corpus.read_text().replace("\n\n", "\n"))
    learner = prepare(Setting(data=one, folder=tmp_path, validation=corpus))
    assert learner.corpus.items["documents"] == 1
    assert learner.corpus.items["held-out tokens"] > 0.9 * learner.corpus.items["tokens"]
    assert prepare(Setting(data=one, folder=tmp_path)).corpus.items["held-out tokens"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"mask": 1.5}, "mask = 1.5"), ({"width": 33}, "a multiple of the heads"), ({"context": 3}, "at least 8"), ({"lr": -1.0}, "lr = -1")],
)
def test_wrong_options_are_refused(corpus: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        prepare(Setting(data=corpus, folder=tmp_path), **options)


def test_what_cannot_be_learned_from_is_said(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no text"):
        prepare(Setting(data=[" "], folder=tmp_path))
    store.save_transformers(tiny_model("gpt2"), tmp_path / "gpt")
    vocabulary.save(vocabulary.train(Texts(corpus), kind="bpe", size=90), tmp_path / "gpt", max_length=32)
    with pytest.raises(BadOption, match="no mask token"):
        registry.create("objectives", "bert").prepare(Setting(data=corpus, folder=tmp_path, start=tmp_path / "gpt"))
    vocabulary.save(vocabulary.train(Texts(corpus), kind="wordpiece", size=90), tmp_path / "gpt", max_length=32)
    with pytest.raises(BackboneNotFound, match="masked language model"):
        registry.create("objectives", "bert").prepare(Setting(data=corpus, folder=tmp_path, start=tmp_path / "gpt"))
    backbone = tmp_path / "bert"
    prepare(Setting(data=corpus, folder=tmp_path)).save(backbone)
    for options, said in (({"width": 64}, "width was given together with --from"), ({"context": 99}, "at most 32")):
        with pytest.raises(BadOption, match=said):
            registry.create("objectives", "bert", options=options).prepare(Setting(data=corpus, folder=tmp_path, start=backbone))


def test_a_pretrained_body_is_worth_more_than_the_same_at_random(corpus: Path, tmp_path: Path) -> None:
    """Four labels a class, ten draws, a linear classifier on the mean of the states: does the pre-trained body tell the subjects apart?"""
    codes, table = [], rows(300, seed=1, wrong=0.0)
    labels = np.array([row["label"] for row in table])
    for steps in (0, 60):
        learner = prepare(Setting(data=corpus, folder=tmp_path), steps=steps, lr=1e-2, depth=1)
        loop.run(learner, loop.How(folder=tmp_path / f"run{steps}", seed=0, device=torch.device("cpu"), precision=torch.float32))
        learner.save(tmp_path / f"body{steps}")
        codes.append(text_states(tmp_path / f"body{steps}", [row["text"] for row in table]))
    low, _ = statistics.mean_interval(gains(codes, labels, per_class=4), bounds=(-1.0, 1.0))
    assert low > 0.05
