"""Token files and the order they are read in; tokenizers trained on a corpus."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.core.errors import DataError
from warmstart.engine import corpus, tokens, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.tokens import Order, TokenFile

TEXTS = [f"The number {i} is here. It has a friend, {i + 1}." if i % 3 else f"Alone {i}" for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return vocabulary.train(Texts(TEXTS), kind="wordpiece", size=200, lowercase=True)


def read_back(file: TokenFile, tokenizer: Any) -> list[list[str]]:
    found = []
    for first, last in itertools.pairwise(file.documents):
        bounds = file.sentences[first : last + 1]
        found.append([tokenizer.decode(file.tokens[a:b].tolist()) for a, b in itertools.pairwise(bounds)])
    return found


def test_token_files_hold_the_sentences_of_the_documents(tmp_path: Path, tokenizer: Any) -> None:
    files = tokens.build(Texts(TEXTS), tokenizer, folder=tmp_path, sentences=corpus.sentences, held=0.1, seed=3)
    train, held = (read_back(files[part], tokenizer) for part in ("train", "held"))
    assert len(held) == 6
    assert len(train) == 54
    expected = [[tokenizer.decode(tokenizer.encode(s, add_special_tokens=False).ids) for s in corpus.sentences(t)] for t in TEXTS]
    assert sorted(train + held) == sorted(expected)
    assert files["train"].tokens.dtype == np.uint16
    assert files["train"].characters + files["held"].characters == sum(map(len, TEXTS))
    other = tokens.build(Texts(TEXTS), tokenizer, folder=tmp_path, sentences=corpus.sentences, held=0.1, seed=4)
    assert read_back(other["held"], tokenizer) != held


def test_few_documents_are_held_out_at_their_end(tmp_path: Path) -> None:
    texts = Texts(["word " * 200 + "\nthe last line\nof all"])
    characters = vocabulary.train(texts, kind="characters", size=100)
    files = tokens.build(texts, characters, folder=tmp_path, held=0.02)
    assert characters.decode(files["held"].tokens.tolist()) == "the last line\nof all"
    with pytest.raises(DataError, match="too few to set some aside"):
        tokens.build(Texts(["a"]), characters, folder=tmp_path, held=0.1)


def test_unknown_characters_are_counted(tmp_path: Path) -> None:
    characters = vocabulary.train(Texts(["abc"]), kind="characters", size=100)
    file = tokens.build(Texts(["abxxc"]), characters, folder=tmp_path)["train"]
    assert (len(file.tokens), file.unknown) == (5, 2)


def test_an_interrupted_build_goes_on(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CHARACTERS_AT_ONCE", 100)
    monkeypatch.setattr(tokens, "CHECKPOINT_EVERY", 3)
    whole = tokens.build(Texts(TEXTS), tokenizer, folder=tmp_path / "a", sentences=corpus.sentences, held=0.1)
    asked = []

    def breaking(text: str) -> list[str]:
        asked.append(text)
        if len(asked) == 40:
            raise KeyboardInterrupt
        return corpus.sentences(text)

    breaking.__module__, breaking.__qualname__ = corpus.sentences.__module__, corpus.sentences.__qualname__
    with pytest.raises(KeyboardInterrupt):
        tokens.build(Texts(TEXTS), tokenizer, folder=tmp_path / "b", sentences=breaking, held=0.1)
    before = len(asked)
    again = tokens.build(Texts(TEXTS), tokenizer, folder=tmp_path / "b", sentences=breaking, held=0.1)
    assert len(asked) - before < 40  # not from the start
    for part, file in whole.items():
        for name in ("tokens", "sentences", "documents"):
            np.testing.assert_array_equal(getattr(file, name), getattr(again[part], name))
    assert [path.name for path in (tmp_path / "b").glob("*.partial")] == []


@pytest.mark.parametrize("n", [1, 37, 40, 1000])
def test_an_order_is_a_permutation_of_which_any_part_can_be_had(n: int) -> None:
    order = Order(n, seed=5, block=4, mixed=3)
    whole = order.take(0, np.arange(n))
    assert sorted(whole.tolist()) == list(range(n))
    part = np.arange(n // 3, n // 2 + 1)[::-1]
    np.testing.assert_array_equal(Order(n, seed=5, block=4, mixed=3).take(0, part), whole[part])
    if n > 37:
        assert whole.tolist() != order.take(1, np.arange(n)).tolist()
        spread = np.abs(np.diff(np.sort(whole[:12])))
        assert spread.max() >= 1
        assert len(np.unique(whole[:12] // 4)) == 3  # a window touches only its own blocks


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "characters"])
def test_a_trained_tokenizer_is_the_same_again_and_opens_in_transformers(tmp_path: Path, kind: Any) -> None:
    from transformers import AutoTokenizer

    texts = Texts([*TEXTS, "Ärger über 中文 \U0001f600"])
    first, second = (vocabulary.train(texts, kind=kind, size=300, lowercase=False) for _ in range(2))
    assert json.loads(first.to_str()) == json.loads(second.to_str())
    assert first.get_vocab_size() <= 300
    vocabulary.save(first, tmp_path, max_length=16)
    opened = AutoTokenizer.from_pretrained(str(tmp_path))
    assert vocabulary.fingerprint(opened.backend_tokenizer) == vocabulary.fingerprint(first)
    text = "The friend 中文 \U0001f600"
    ids = opened(text)["input_ids"]
    if kind == "wordpiece":
        assert opened(text, "x")["token_type_ids"][-1] == 1
        assert opened.convert_ids_to_tokens(ids)[0] == "[CLS]"
    else:
        assert opened.decode(ids) == text
    assert opened.model_max_length == 16


def test_a_tokenizer_that_pads_and_cuts_does_neither_here(tmp_path: Path, tokenizer: Any) -> None:
    """That of MiniLM does both, at 128 tokens: padding would be learned from, and the end of a long sentence would not."""
    (tmp_path / "corpus.txt").write_text("Short.\n" + "the long way home " * 20 + "\n", encoding="utf-8")
    texts = Texts(tmp_path / "corpus.txt")
    whole = tokens.build(texts, tokenizer, folder=tmp_path / "whole")["train"]
    stock = type(tokenizer).from_str(tokenizer.to_str())
    stock.enable_padding(length=16)
    stock.enable_truncation(8)
    found = tokens.build(texts, stock, folder=tmp_path / "found")["train"]
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    assert len(found.tokens) > 40
    assert stock.padding["length"] == 16, "the one given is left as it is"
