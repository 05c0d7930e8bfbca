"""Rows of token ids made into batches for a masked language model: hidden, sorted by length, cut into small batches by a token budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.engine import masking
from warmstart.engine.masking import Vocabulary
from warmstart.engine.sentence_pairs import NO_PAIR, Rows
from warmstart.engine.tokens import Ints, TokenFile

SHORTER = 0.85


@dataclass(frozen=True)
class Batch:
    """One process's share of a step: ``parts`` are the arguments of ``MaskedModel``. ``masked`` and ``pairs`` count over all processes."""

    parts: list[dict[str, Tensor]]
    tokens: int
    masked: int
    pairs: int


@dataclass(frozen=True)
class How:
    """``share`` of the tokens is masked, by ``whole_word`` or one by one; ``tokens`` (padding included) are computed at a time."""

    vocabulary: Vocabulary
    share: float
    whole_word: bool
    second: bool
    tokens: int
    device: torch.device


def make(file: TokenFile, rows: Rows, how: How, *, random: np.random.Generator, rank: int = 0, world: int = 1) -> Batch:
    """Hide tokens of all rows, and collate those of this process: every ``world``-th in the order of length.

    All processes get equally many parts, as those need that compute them together: some may ask for nothing.
    """
    rows = rows.take(np.argsort(-rows.length, kind="stable"))
    ids, types, real = lay_out(file, rows, how.vocabulary)
    allowed = real & ~_special(rows, ids.shape[1])
    inner = how.vocabulary.inner if how.whole_word else None
    chosen = masking.choose(ids, allowed, share=how.share, inner=inner, random=random)
    hidden = masking.hide(ids, chosen, vocabulary=how.vocabulary, random=random)
    own = np.arange(rank, len(ids), world)
    labels = rows.label if how.second else np.full_like(rows.label, NO_PAIR)
    masked, pairs = int(chosen.sum()), int((labels != NO_PAIR).sum())

    def part(here: Ints, chosen: NDArray[np.bool_], labels: Ints) -> dict[str, Tensor]:
        longest = int(rows.length[here[0]])
        found = _part(*(table[here, :longest] for table in (hidden, ids, types, real, chosen)))
        return found | ({"follows": torch.from_numpy(labels[here])} if how.second else {})

    cuts = [list(_cut(rows.length[other::world], how.tokens)) for other in range(world)]
    parts = [part(own[start:end], chosen, labels) for start, end in cuts[rank] if end > start]
    nothing = np.array([len(ids) - 1]), np.zeros_like(chosen), np.full_like(labels, NO_PAIR)
    parts += [part(*nothing) for _ in range(max(map(len, cuts)) - len(parts))]
    moved = [{name: value.to(how.device, non_blocking=True) for name, value in part.items()} for part in parts]
    return Batch(moved, int(rows.length[own].sum()), masked, pairs)


def lay_out(file: TokenFile, rows: Rows, vocabulary: Vocabulary) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``: ids, token types (1 for B and its end) and where a token is, each (R, T)."""
    at = np.arange(int(rows.length.max()))[None, :]
    a, b, border = rows.a_length[:, None], rows.b_length[:, None], rows.a_length[:, None] + 2
    real = at < rows.length[:, None]
    in_a, in_b = (at > 0) & (at <= a), (at >= border) & (at < border + b)
    source = np.where(in_a, rows.a[:, None] + at - 1, rows.b[:, None] + at - border)
    ids = np.full(real.shape, vocabulary.pad, np.int64)
    ids[in_a | in_b] = file.tokens[source[in_a | in_b]]
    ids[real & ~in_a & ~in_b] = vocabulary.sep
    ids[:, 0] = vocabulary.cls
    return ids, (real & (at >= border)).astype(np.int64), real


def _special(rows: Rows, length: int) -> NDArray[np.bool_]:
    at = np.arange(length)[None, :]
    return np.asarray((at == 0) | (at == rows.a_length[:, None] + 1) | (at == rows.length[:, None] - 1))


def _cut(lengths: Ints, tokens: int) -> Iterator[tuple[int, int]]:
    """Bounds of runs of rows, longest first, that take at most ``tokens`` when padded to their first.

    A run ends earlier where rows get much shorter than its first, if it is long enough to be worth its fixed costs.
    """
    start = 0
    for end, length in enumerate(lengths.tolist()):
        longest, rows = int(lengths[start]), end - start
        if rows and (longest * (rows + 1) > tokens or (length < SHORTER * longest and longest * rows >= tokens // 8)):
            yield start, end
            start = end
    yield start, len(lengths)


def _part(hidden: NDArray[Any], ids: NDArray[Any], types: NDArray[Any], real: NDArray[Any], chosen: NDArray[Any]) -> dict[str, Tensor]:
    positions = np.flatnonzero(chosen)
    found = {
        "input_ids": torch.from_numpy(np.ascontiguousarray(hidden)),
        "token_type_ids": torch.from_numpy(np.ascontiguousarray(types)),
        "positions": torch.from_numpy(positions),
        "targets": torch.from_numpy(ids.reshape(-1)[positions]),
    }
    if not real.all():
        found["attention_mask"] = torch.from_numpy(real.astype(np.int64))
    return found
