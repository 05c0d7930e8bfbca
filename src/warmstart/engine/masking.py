"""Which tokens are hidden for masked language modelling, and what stands in their place (Devlin et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.engine.tokens import Ints

MASKED, RANDOM = 0.8, 0.1
"""Of the chosen tokens, the share that becomes the mask token and the share that becomes another token; the others stay."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer: its size, its ids, and which tokens go on with a word: (V,) bool, or None."""

    size: int
    cls: int
    sep: int
    pad: int
    mask: int
    ordinary: Ints
    """The ids that are not special."""
    inner: NDArray[np.bool_] | None


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Read it from a tokenizer of transformers.

    A token goes on with a word where WordPiece's mark stands before it; with byte-level BPE and SentencePiece where the mark of a
    new word (or, in BPE, punctuation) does not. Without any such mark ``inner`` is None: every token counts as a word.
    """
    backend = tokenizer.backend_tokenizer
    size = backend.get_vocab_size()
    words = [backend.id_to_token(number) or "" for number in range(size)]
    special = np.array(sorted(set(tokenizer.all_special_ids)), np.int64)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    cls = tokenizer.bos_token_id if cls is None else cls
    sep = tokenizer.eos_token_id if sep is None else sep
    prefix = getattr(backend.model, "continuing_subword_prefix", None) or ""
    if prefix and any(word.startswith(prefix) for word in words):
        inner: NDArray[np.bool_] | None = np.array([word.startswith(prefix) for word in words])
    elif marks := tuple(mark for mark in "Ġ▁" if any(word.startswith(mark) for word in words)):
        inner = np.array([word[:1].isalpha() and not word.startswith(marks) for word in words])
    else:
        inner = None
    if inner is not None:
        inner[special] = False
    return Vocabulary(size, cls, sep, tokenizer.pad_token_id, tokenizer.mask_token_id, np.setdiff1d(np.arange(size), special), inner)


def choose(
    ids: Ints, allowed: NDArray[np.bool_], *, share: float, inner: NDArray[np.bool_] | None, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Which tokens of each row are to be predicted: ``share`` of the allowed ones, at least one where any is.

    Args:
        ids: (B, T) token ids.
        allowed: (B, T) where there is an ordinary token.
        share: From 0 to 1.
        inner: (V,) which ids go on with a word: then words are chosen as wholes (whole-word masking); a word that would exceed the share
            is passed over. None: tokens are chosen one by one.
        random: Everything is drawn from it.
    """
    n_rows, length = ids.shape
    starts = np.ones_like(allowed) if inner is None else ~inner[ids]
    starts[:, 1:] |= ~allowed[:, :-1]  # the first piece after a special token begins a word, however it is written
    word = np.maximum(np.cumsum(starts, axis=1) - 1, 0)
    key = np.take_along_axis(random.random((n_rows, length)), word, axis=1)
    key[~allowed] = 2.0
    order = np.argsort(key, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(length)[None, :], axis=1)
    wanted = np.maximum(1, np.round(share * allowed.sum(axis=1))).astype(np.int64)[:, None]
    if inner is None:
        return np.asarray(allowed & (rank < wanted))
    sizes = np.zeros((n_rows, length), np.int64)
    np.add.at(sizes, (np.arange(n_rows)[:, None], word), allowed)
    firsts = np.full((n_rows, length), length, np.int64)
    np.minimum.at(firsts, (np.arange(n_rows)[:, None], word), np.where(allowed, rank, length))
    first = np.take_along_axis(firsts, word, axis=1)
    return np.asarray(allowed & ((first + np.take_along_axis(sizes, word, axis=1) <= wanted) | (first == 0)))


def hide(ids: Ints, chosen: NDArray[np.bool_], *, vocabulary: Vocabulary, random: np.random.Generator) -> Ints:
    """The ids with the chosen ones hidden: 80 % mask, 10 % another token, 10 % as they are."""
    fate = random.random(ids.shape)
    hidden = np.where(chosen & (fate < MASKED), vocabulary.mask, ids)
    other = vocabulary.ordinary[random.integers(len(vocabulary.ordinary), size=ids.shape)]
    return np.where(chosen & (fate >= MASKED) & (fate < MASKED + RANDOM), other, hidden)
