"""The text modality: roles, checks, tokenizers of several kinds, and the features of the classic rung."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizerFast, GPT2TokenizerFast

from warmstart.core.errors import BackboneNotFound, BadOption, ColumnNotFound, DamagedModel
from warmstart.core.protocols import Encoder, Featurizer, Modality
from warmstart.parts.modalities import text

CORPUS = ["the film was good", "a bad film, really bad!", "good actors in a bad film", "what a film"]
PART = text.Part(text.Options())


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT tokenizer: a padding token, token types, special tokens around."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("wordpiece")
    BertTokenizerFast(tokenizer_object=tokenizer, vocab=tokenizer.get_vocab()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 tokenizer: no padding token, no token types, nothing around."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet))
    folder = tmp_path_factory.mktemp("byte_pairs")
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    GPT2TokenizerFast(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    return folder


def encoder(folder: Path, max_length: int = 16) -> Encoder:
    return PART.encoder(folder, max_length)


def test_it_is_a_modality() -> None:
    assert isinstance(PART, Modality)
    assert PART.name == "text"


@pytest.mark.parametrize(
    ("columns", "given_roles", "expected"),
    [
        ({"id": ["x" * 36, "y" * 36], "words": ["a short text", "and another"]}, {}, {"text": "words"}),
        ({"id": ["x" * 36, "y" * 36], "words": ["短い文", "别的句子"]}, {}, {"text": "words"}),
        ({"title": ["a b", "c d"], "Review": ["a b", "c d"]}, {}, {"text": "Review"}),
        ({"note": ["a b c d", "c d e f"], "sentence": ["a", "b"]}, {}, {"text": "sentence"}),
        ({"title": ["1", "2"], "remark": ["a", "b"], "content": ["c", "d"]}, {}, {"text": "content"}),
        ({"text": ["2012"], "remark": ["a"]}, {}, {"text": "text"}),
        ({"text": ["", "a", ""]}, {}, {"text": "text"}),
        ({"sentence2": ["a"], "sentence1": ["b"]}, {}, {"text": "sentence1", "text_pair": "sentence2"}),
        ({"question": ["a"], "answer": ["b"]}, {"text": "answer"}, {"text": "answer"}),
        ({"a": ["some words"], "b": ["others"]}, {"text_pair": "a"}, {"text": "b", "text_pair": "a"}),
        ({"a": [None, "some words", None]}, {}, {"text": "a"}),
    ],
)
def test_the_column_of_running_text_is_found(columns: dict[str, list[str]], given_roles: dict[str, str], expected: dict[str, str]) -> None:
    assert PART.infer(columns, given_roles) == expected


def test_no_text_at_all() -> None:
    with pytest.raises(ColumnNotFound, match="--column text=NAME"):
        PART.infer({"a": [1, 2], "b": ["1.5", "-2e3"], "c": []}, {})


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_content_tells_different_inputs_apart(a: tuple[str, str], b: tuple[str, str]) -> None:
    assert (PART.content(a) == PART.content(b)) == (a == b)
    assert PART.content((a[0],)) != PART.content(a)


def test_show() -> None:
    assert PART.show(("one", "two")) == "one | two"


def test_encoding_is_that_of_the_tokenizer_and_ragged(wordpiece: Path) -> None:
    values = [("the film was good",), ("bad",)]
    encoded = encoder(wordpiece).encode(values)
    expected = AutoTokenizer.from_pretrained(str(wordpiece))([v[0] for v in values])["input_ids"]
    assert [list(e["input_ids"]) for e in encoded] == expected
    assert set(encoded[0]) == {"input_ids", "token_type_ids"}
    assert encoded[0]["input_ids"].dtype == np.int64


def test_pairs_get_token_types_and_share_the_length(wordpiece: Path) -> None:
    (encoded,) = encoder(wordpiece, 10).encode([("good film " * 9, "bad film " * 9)])
    assert encoded["token_type_ids"].tolist() == [0] * 5 + [1] * 5
    assert len(encoded["input_ids"]) == 10


def test_collating_pads_on_the_right_and_masks_the_padding(wordpiece: Path) -> None:
    tokenizer = encoder(wordpiece)
    examples = tokenizer.encode([("the film was good",), ("bad",)])
    batch = tokenizer.collate(examples)
    n = len(examples[1]["input_ids"])
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(e["input_ids"]) for e in examples]
    assert batch["attention_mask"][1, :n].all()
    assert batch["input_ids"][1, :n].tolist() == examples[1]["input_ids"].tolist()
    assert (batch["input_ids"][1, n:] == 0).all()
    assert {tuple(t.shape) for t in batch.values()} == {(2, len(examples[0]["input_ids"]))}
    assert {str(t.dtype) for t in batch.values()} == {"torch.int64"}


def test_a_tokenizer_without_padding_token_works(byte_pairs: Path) -> None:
    tokenizer = encoder(byte_pairs)
    examples = tokenizer.encode([("the film was good",), ("bad",)])
    assert set(examples[0]) == {"input_ids"}
    batch = tokenizer.collate(examples)
    end = AutoTokenizer.from_pretrained(str(byte_pairs)).eos_token_id
    assert batch["input_ids"][1, -1] == end
    assert batch["attention_mask"][1, -1] == 0


def test_many_and_very_long_texts(wordpiece: Path) -> None:
    tokenizer = encoder(wordpiece)
    encoded = tokenizer.encode([("good film " * 200_000,), *[("bad",)] * 1_500])
    assert len(encoded) == 1_501
    assert len(encoded[0]["input_ids"]) == 16
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("kind", ["wordpiece", "byte_pairs"])
def test_the_fingerprint_survives_saving_and_tells_settings_apart(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(kind)
    first = encoder(folder)
    first.encode([("good film",)])
    first.save(tmp_path)
    again = encoder(tmp_path)
    assert again.fingerprint == first.fingerprint == encoder(folder).fingerprint
    assert encoder(folder, 17).fingerprint != first.fingerprint
    np.testing.assert_equal(again.encode([("a bad film",)]), first.encode([("a bad film",)]))


def test_tokenizers_that_differ_have_different_fingerprints(wordpiece: Path, byte_pairs: Path) -> None:
    assert encoder(wordpiece).fingerprint != encoder(byte_pairs).fingerprint


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_missing_or_broken_tokenizer_is_our_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackboneNotFound, match="no tokenizer can be loaded"):
        encoder(tmp_path)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=8))
def test_features_are_those_of_scikit_learn(texts: list[str]) -> None:
    texts = [f"{t} end" for t in texts]  # scikit-learn refuses a vocabulary without words
    ours = PART.featurizer({}).fit([(t,) for t in texts])
    shared = {"sublinear_tf": True, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", **shared).fit_transform(texts)  # noqa: S106
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared).fit_transform(texts)
    expected = np.hstack([words.toarray(), characters.toarray()])
    np.testing.assert_allclose(ours.toarray(), expected, atol=1e-6)


def featurizer_of(values: list[tuple[str, ...]]) -> Featurizer:
    featurizer: Featurizer = PART.featurizer({})
    featurizer.fit(values)
    return featurizer


def test_fit_returns_what_transform_returns_also_over_several_chunks() -> None:
    rng = np.random.default_rng(0)
    values = [(" ".join(rng.choice(list("abcdefgh"), 6)),) for _ in range(9_000)]
    featurizer = PART.featurizer({})
    assert (featurizer.fit(values) != featurizer.transform(values)).nnz == 0
    whole, single = featurizer.transform(values), featurizer.transform(values[8_500:8_501])
    assert (whole[8_500:8_501] != single).nnz == 0


def test_features_are_bounded_keep_what_most_texts_have_and_are_float32() -> None:
    features = PART.featurizer({"max_words": 3, "max_characters": 5}).fit([(t,) for t in CORPUS])
    assert features.shape == (4, 8)
    assert features.dtype == np.float32
    assert features[:, :3].getnnz(axis=0).max() == 4  # "film" is in all of them
    with pytest.raises(BadOption, match="Did you mean 'max_words'"):
        PART.featurizer({"max_word": 3})


def test_unseen_and_odd_texts_have_features_too() -> None:
    featurizer = featurizer_of([(t,) for t in CORPUS])
    features = featurizer.transform([("zzz",), ("",), ("x" * 100_000,), ("好",)])
    assert features.shape[0] == 4
    assert np.isfinite(features.data).all()
    assert featurizer.transform([]).shape[0] == 0


def test_the_two_texts_of_a_pair_are_kept_apart() -> None:
    featurizer = featurizer_of([(a, b) for a in CORPUS for b in CORPUS])
    assert (featurizer.transform([("good", "film")]) != featurizer.transform([("good film", "")])).nnz > 0


def test_saved_features_are_the_same_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    featurizer = featurizer_of([(t,) for t in CORPUS])
    featurizer.save(tmp_path)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    script = """if True:
        import sys, pathlib
        from warmstart.parts.modalities import text
        features = text.Part(text.Options()).load_featurizer(pathlib.Path(sys.argv[1])).transform([("a good film, really",), ("what?",)])
        print(features.data.tobytes().hex(), features.indices.tolist())
    """
    fresh = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    here = featurizer.transform([("a good film, really",), ("what?",)])
    assert fresh.strip() == f"{here.data.tobytes().hex()} {here.indices.tolist()}"


def test_damaged_features_are_our_error(tmp_path: Path) -> None:
    featurizer_of([(t,) for t in CORPUS]).save(tmp_path)
    (tmp_path / "tfidf.json").write_text("{")
    with pytest.raises(DamagedModel):
        PART.load_featurizer(tmp_path)
