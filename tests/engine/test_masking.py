"""Which tokens are hidden, and by what."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart.engine import masking
from warmstart.engine.masking import Vocabulary

INNER = np.arange(50) >= 40  # ids from 40 on go on with a word
VOCABULARY = Vocabulary(50, cls=1, sep=2, pad=0, mask=3, ordinary=np.arange(4, 50), inner=INNER)


def rows(n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(4, 50, size=(n, length))
    allowed = np.arange(length)[None, :] < np.random.default_rng(1).integers(2, length, size=n)[:, None]
    allowed[:, 0] = False
    return np.where(allowed, ids, 0), allowed


@pytest.mark.parametrize("share", [0.15, 0.4, 0.001])
def test_each_row_hides_its_share_of_what_is_allowed(share: float) -> None:
    ids, allowed = rows(200, 40)
    chosen = masking.choose(ids, allowed, share=share, inner=None, random=np.random.default_rng(2))
    assert not (chosen & ~allowed).any()
    np.testing.assert_array_equal(chosen.sum(1), np.maximum(1, np.round(share * allowed.sum(1))))
    where = masking.choose(ids, np.ones_like(allowed), share=share, inner=None, random=np.random.default_rng(2)).mean(0)
    assert where.std() < 0.06  # every place is as likely


def test_whole_words_are_hidden_whole() -> None:
    ids, allowed = rows(300, 40)
    chosen = masking.choose(ids, allowed, share=0.15, inner=INNER, random=np.random.default_rng(2))
    for row, ok, hidden in zip(ids, allowed, chosen, strict=True):
        at = np.flatnonzero(ok)
        words = np.cumsum(~INNER[row[at]] | (at == at[0]))
        for word in np.unique(words):
            assert len(set(hidden[at[words == word]])) == 1
    counts, wanted = chosen.sum(1), np.maximum(1, np.round(0.15 * allowed.sum(1)))
    assert (counts >= 1).all()
    assert (counts[counts > wanted] < 20).all()  # more only where the first word drawn is longer than the share
    assert abs(counts.sum() / wanted.sum() - 1) < 0.15


def test_eight_in_ten_become_the_mask_one_another_token_one_stays() -> None:
    ids = np.full((100, 500), 7)
    chosen = np.zeros_like(ids, bool)
    chosen[:, ::2] = True
    hidden = masking.hide(ids, chosen, vocabulary=VOCABULARY, random=np.random.default_rng(3))
    assert (hidden[~chosen] == 7).all()
    got = hidden[chosen]
    assert (got == 3).mean() == pytest.approx(0.8, abs=0.01)
    assert (got == 7).mean() == pytest.approx(0.1 + 0.1 / 46, abs=0.01)
    assert set(np.unique(got)) == {3, *range(4, 50)}
