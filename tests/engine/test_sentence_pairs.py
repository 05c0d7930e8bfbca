"""Rows packed from sentences: whole, within their limits, all of the text, and paired as the second task wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from warmstart.engine import sentence_pairs
from warmstart.engine.sentence_pairs import Rows, Stream, pack
from warmstart.engine.tokens import TokenFile


def file_of(documents: Sequence[Sequence[int]]) -> TokenFile:
    """Documents given as the lengths of their sentences; token n is n."""
    lengths = np.array([n for document in documents for n in document])
    tokens = np.arange(lengths.sum(), dtype=np.uint32)
    ends = np.cumsum([0, *(len(document) for document in documents)])
    return TokenFile(tokens, np.concatenate([[0], np.cumsum(lengths)]), ends, unknown=0, characters=0)


def random_file(n: int = 200) -> TokenFile:
    random = np.random.default_rng(0)
    return file_of([random.integers(1, 12, size=random.integers(1, 9)).tolist() for _ in range(n)])


def covered(rows: Rows) -> np.ndarray:
    spans = [*zip(rows.a, rows.a_length, strict=True), *zip(rows.b, rows.b_length, strict=True)]
    return np.concatenate([np.arange(a, a + n) for a, n in spans])


@pytest.mark.parametrize("second", ["none", "sop"])
def test_every_token_is_in_one_row(second: sentence_pairs.Second) -> None:
    file = random_file()
    rows = pack(file, np.arange(200), context=24, second=second, random=np.random.default_rng(1))
    assert sorted(covered(rows).tolist()) == list(range(len(file.tokens)))
    assert rows.length.max() <= 24


def test_next_sentences_follow_and_others_come_from_another_document() -> None:
    file = random_file()
    rows = pack(file, np.arange(200), context=40, second="nsp", random=np.random.default_rng(1))
    document = np.searchsorted(file.document_bounds(), np.arange(len(file.tokens)), side="right")
    paired = rows.label >= 0
    follows, other = rows.label == 0, rows.label == 1
    assert 0.4 < other.sum() / paired.sum() < 0.6
    assert (rows.a + rows.a_length == rows.b)[follows].all()
    assert (document[rows.a] == document[rows.b])[follows].all()
    assert (document[rows.a] != document[rows.b])[other].all()
    assert (rows.b_length[~paired] == 0).all()
    assert np.isin(rows.a, file.sentences).all()
    assert set(covered(rows).tolist()) == set(range(len(file.tokens)))  # what was replaced begins another row
    assert rows.length.max() <= 40


def test_swapped_sentences_are_labelled() -> None:
    rows = pack(random_file(), np.arange(200), context=40, second="sop", random=np.random.default_rng(1))
    assert (rows.b == rows.a + rows.a_length)[rows.label == 0].all()
    assert (rows.a == rows.b + rows.b_length)[rows.label == 1].all()
    assert 0.4 < (rows.label == 1).sum() / (rows.label >= 0).sum() < 0.6


def test_a_sentence_longer_than_a_row_is_cut_and_one_document_has_no_other() -> None:
    file = file_of([[3, 50, 2]])
    rows = pack(file, np.array([0]), context=13, second="nsp", random=np.random.default_rng(1))
    assert sorted(covered(rows).tolist()) == list(range(55))
    assert (rows.label != 1).all()
    assert rows.length.max() <= 13


def test_any_step_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_pairs, "BLOCK", 300)
    monkeypatch.setattr(sentence_pairs, "MIXED", 3)
    file = random_file(400)
    made = [Stream(file, context=32, second="nsp", tokens=256, seed=4) for _ in range(2)]
    steps = made[0].steps_per_epoch
    assert steps > 20
    forward = [made[0].rows(step) for step in range(2 * steps)]
    for step in (2 * steps - 1, 0, steps, 5):
        for name in ("a", "b", "label"):
            np.testing.assert_array_equal(getattr(made[1].rows(step), name), getattr(forward[step], name))
    sizes = [int(rows.length.sum()) for rows in forward]
    assert np.mean(sizes) == pytest.approx(256, rel=0.1)
    assert max(sizes) < 400
    seen = np.unique(np.concatenate([covered(rows) for rows in forward[:steps]]))
    assert len(seen) == len(file.tokens)
    assert covered(forward[0]).tolist() != covered(forward[steps]).tolist()
