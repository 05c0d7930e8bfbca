"""Rows of one or two stretches of sentences, packed from a token file window by window, for masked language modelling.

A row is ``[CLS] A [SEP] B [SEP]``; A and B are whole sentences of the token file, each a contiguous stretch within one document. Rows hold
as many sentences as fit, so what little they differ in length is dealt with by sorting, not by padding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.engine.tokens import Ints, TokenFile

Second = Literal["nsp", "sop", "none"]

BLOCK, MIXED = 1 << 17, 8
"""Tokens of a block of neighbouring documents, and how many blocks, drawn at random, are mixed in a window."""

SPECIAL = {"none": 2, "nsp": 3, "sop": 3}
"""Special tokens of the longest row."""

NO_PAIR = -100


@dataclass(frozen=True)
class Rows:
    """R rows: where A and B begin in the tokens and how long they are (B of a single: 0), and the ``label``.

    0: B follows A. 1: it does not, or comes before it. -100: there is no B.
    """

    a: Ints
    a_length: Ints
    b: Ints
    b_length: Ints
    label: Ints

    @property
    def length(self) -> Ints:
        """(R,) tokens with the special ones."""
        return self.a_length + self.b_length + 2 + (self.b_length > 0)

    def take(self, chosen: Ints) -> Rows:
        """The rows at these places."""
        return Rows(self.a[chosen], self.a_length[chosen], self.b[chosen], self.b_length[chosen], self.label[chosen])


class Stream:
    """Batches of rows without end: step ``n`` always has the same rows, whatever was asked before.

    Each epoch shuffles blocks of neighbouring documents, mixes the documents of ``MIXED`` blocks in a window, packs them into rows with
    new borders, and cuts the shuffled rows into as many batches as the window has times ``tokens``.
    """

    def __init__(self, file: TokenFile, *, context: int, second: Second, tokens: int, seed: int) -> None:
        self.file, self.context, self.second, self.tokens, self.seed = file, context, second, tokens, seed
        self.blocks = _blocks(file)
        self.in_block = np.diff(file.sentences[file.documents[self.blocks]])  # (blocks,) tokens
        self._epoch: tuple[int, Ints, Ints] = (-1, self.blocks, self.blocks)
        self._window: tuple[tuple[int, int], list[Rows]] = ((-1, -1), [])
        self._growth = self._grown()
        self.steps_per_epoch = int(self._batches(0)[-1])

    def rows(self, step: int) -> Rows:
        """The rows of a step, in random order."""
        epoch, at = 0, step
        while at >= (steps := int(self._batches(epoch)[-1])):  # epochs differ by a batch or two, as windows are rounded
            epoch, at = epoch + 1, at - steps
        bounds = self._batches(epoch)
        window = int(np.searchsorted(bounds, at, side="right"))
        if self._window[0] != (epoch, window):
            self._window = (epoch, window), self._read(epoch, window, int(bounds[window] - (bounds[window - 1] if window else 0)))
        return self._window[1][at - (int(bounds[window - 1]) if window else 0)]

    def _batches(self, epoch: int) -> Ints:
        """(windows,) how many batches an epoch has up to the end of each window."""
        if self._epoch[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.in_block))
            sums = np.add.reduceat(self.in_block[order], np.arange(0, len(order), MIXED))
            self._epoch = epoch, order, np.cumsum(np.maximum(1, np.round(sums * self._growth / self.tokens).astype(np.int64)))
        return self._epoch[2]

    def _read(self, epoch: int, window: int, batches: int) -> list[Rows]:
        random = np.random.default_rng((self.seed, epoch, 1 + window))
        found = self._packed(self._epoch[1][window * MIXED : (window + 1) * MIXED], random)
        found = found.take(random.permutation(len(found.a)))
        ends = np.cumsum(found.length)
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, batches) / batches)
        return [found.take(part) for part in np.split(np.arange(len(ends)), cuts)]

    def _packed(self, blocks: Ints, random: np.random.Generator) -> Rows:
        documents = np.concatenate([np.arange(self.blocks[b], self.blocks[b + 1]) for b in blocks.tolist()])
        return pack(self.file, random.permutation(documents), context=self.context, second=self.second, random=random)

    def _grown(self) -> float:
        """Tokens of rows for each token of text: special ones are added, and with nsp a replaced B comes again."""
        blocks = np.arange(min(MIXED, len(self.in_block)))
        rows = self._packed(blocks, np.random.default_rng(self.seed))
        return float(rows.length.sum() / self.in_block[blocks].sum())


def pack(file: TokenFile, documents: Ints, *, context: int, second: Second, random: np.random.Generator) -> Rows:
    """Rows of the documents with these numbers, each of at most ``context`` tokens.

    From every document sentences are taken as long as they fit. Their border, drawn at random, parts A from B. With ``nsp`` every other
    B is then replaced by sentences of another document, and those it replaces begin the next row (Devlin et al. 2019); with ``sop`` A and
    B change places in half of the rows (Lan et al. 2020). A single sentence stays alone. A sentence longer than a row is cut.
    """
    room = context - SPECIAL[second]
    spans = [(int(s), int(e)) for s, e in zip(file.documents[documents], file.documents[documents + 1], strict=True)]
    found: list[tuple[int, int, int, int, int]] = []
    draws = iter(random.random(64).tolist())

    def draw() -> float:
        nonlocal draws
        value = next(draws, None)
        if value is None:
            draws = iter(random.random(4096).tolist())
            value = next(draws)
        return float(value)

    for first, last in spans:
        starts = file.sentences[first : last + 1].tolist()
        count, at, offset = last - first, 0, 0
        while at < count:
            begin = starts[at] + offset
            end = bisect_right(starts, begin + room, lo=at + 1) - 1
            if end <= at or offset:  # what is left of a sentence longer than a row, or its beginning
                stop = min(starts[at + 1], begin + room)
                found.append((begin, stop - begin, 0, 0, NO_PAIR))
                at, offset = (at + 1, 0) if stop == starts[at + 1] else (at, stop - starts[at])
                continue
            if second == "none" or end - at < 2:
                found.append((begin, starts[end] - begin, 0, 0, NO_PAIR))
                at = end
                continue
            border = at + 1 + int(draw() * (end - at - 1))
            a = (begin, starts[border] - begin)
            b = (starts[border], starts[end] - starts[border])
            label, at = 0, end
            if draw() < 0.5:
                label = 1
                if second == "sop":
                    a, b = b, a
                else:
                    other = _elsewhere(file, spans, (first, last), b[1], draw)
                    b, at, label = (other, border, 1) if other else (b, at, 0)
            found.append((*a, *b, label))
    table = np.array(found, np.int64).reshape(-1, 5)
    return Rows(*np.ascontiguousarray(table.T))


def _elsewhere(
    file: TokenFile, spans: list[tuple[int, int]], own: tuple[int, int], most: int, draw: Callable[[], float]
) -> tuple[int, int] | None:
    """Sentences of another document: where they begin, and their tokens, at most ``most``; None where there is no other."""
    for _ in range(8):
        other = spans[int(draw() * len(spans))]
        if other == own or other[0] == other[1]:
            continue
        first = other[0] + int(draw() * (other[1] - other[0]))
        starts = file.sentences[first : min(other[1], first + 64) + 1]
        count = max(1, int(np.searchsorted(starts, starts[0] + most, side="right")) - 1)
        return int(starts[0]), min(most, int(starts[count] - starts[0]))
    return None


def _blocks(file: TokenFile) -> Ints:
    """(blocks + 1,) bounds, in documents, of runs of about ``BLOCK`` tokens."""
    bounds = file.sentences[file.documents]
    wanted = np.arange(BLOCK, int(bounds[-1]), BLOCK)
    inner = np.unique(np.searchsorted(bounds, wanted))
    inner = inner[(inner > 0) & (inner < len(bounds) - 1)]
    return np.concatenate([[0], inner, [len(bounds) - 1]]).astype(np.int64)


def single_share(file: TokenFile) -> float:
    """Share of the documents that are one sentence, of which no pair can be made."""
    sizes: NDArray[np.int64] = np.diff(file.documents)
    return float((sizes < 2).mean())
