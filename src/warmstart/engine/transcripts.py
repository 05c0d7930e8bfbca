"""Transcripts: one way of writing them, their characters, and how far a recognised one is from the truth.

A transcript as it is learned and compared is an array of code points (n,), so that a character that no training row has still counts as
an error. Shapes: N utterances, n and m symbols of a truth and of an answer.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.report import Metric
from warmstart.engine import statistics

Case = Literal["lower", "upper", "kept"]
Ints = NDArray[np.int64]

PADDING = -1
APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
WORD_CATEGORIES = ("L", "M", "N")


@dataclass(frozen=True)
class Writing:
    """How transcripts are written before they are learned and compared: Unicode's NFC, one ``case``, white space collapsed to single
    spaces, letters, digits and what is in ``punctuation`` kept, every other sign a space."""

    case: Case = "lower"
    punctuation: str = "'"

    def normal(self, text: str) -> str:
        """``"Don’t — STOP!"`` is ``"don't stop"``."""
        text = unicodedata.normalize("NFC", text.translate(APOSTROPHES))
        text = text.lower() if self.case == "lower" else text.upper() if self.case == "upper" else text
        return " ".join("".join(c if c in self.punctuation or unicodedata.category(c)[0] in WORD_CATEGORIES else " " for c in text).split())


def points(text: str) -> Ints:
    """Code points of a text: (n,)."""
    return np.array([ord(c) for c in text], np.int64)


def text_of(found: Sequence[Any] | NDArray[Any]) -> str:
    """The text of code points; what is below 0 is padding."""
    return "".join(chr(int(p)) for p in found if p >= 0)


def packed(found: Sequence[tuple[Ints, float]]) -> NDArray[np.float32]:
    """Answers as code points (m,), each with how sure it is, in one array: (N, 1 + L), padded with -1."""
    longest = max((len(codes) for codes, _ in found), default=0)
    out = np.full((len(found), 1 + longest), PADDING, np.float32)
    for row, (codes, sure) in zip(out, found, strict=True):
        row[0], row[1 : 1 + len(codes)] = sure, codes
    return out


def rejoined(compact: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """Answers for the pieces of recordings, ``counts`` of each, as one answer for each recording: texts joined by spaces, and the geometric
    mean of how sure the pieces are."""
    found, start = [], 0
    for count in counts:
        rows = compact[start : start + count]
        texts = [text_of(row[1:]) for row in rows]
        found.append((points(" ".join(" ".join(texts).split())), float(np.exp(np.log(np.maximum(rows[:, 0], 1e-9)).mean()))))
        start += count
    return packed(found)


def edits(truth: Sequence[Hashable], answer: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that make the answer of the truth (Levenshtein 1966)."""
    return int(_table(truth, answer)[-1, -1])


def alignment(truth: Sequence[Hashable], answer: Sequence[Hashable]) -> list[tuple[Any, Any]]:
    """The truth beside the answer: pairs of symbols, with None on the left of an insertion and on the right of a deletion."""
    table = _table(truth, answer)
    i, j = len(truth), len(answer)
    found: list[tuple[Any, Any]] = []
    while i or j:
        here = table[i, j]
        if i and j and here == table[i - 1, j - 1] + (truth[i - 1] != answer[j - 1]):
            i, j = i - 1, j - 1
            found.append((truth[i], answer[j]))
        elif i and here == table[i - 1, j] + 1:
            i -= 1
            found.append((truth[i], None))
        else:
            j -= 1
            found.append((None, answer[j]))
    return found[::-1]


def _table(truth: Sequence[Hashable], answer: Sequence[Hashable]) -> Ints:
    """Edits between every beginning of the one and every beginning of the other: (n + 1, m + 1), a row at a time."""
    index: dict[Hashable, int] = {}
    a, b = (np.array([index.setdefault(s, len(index)) for s in side], np.int64) for side in (truth, answer))
    steps = np.arange(len(b) + 1)
    table = np.empty((len(a) + 1, len(b) + 1), np.int64)
    table[0] = steps
    for i, symbol in enumerate(a):
        best = table[i] + 1
        best[1:] = np.minimum(best[1:], table[i, :-1] + (b != symbol))
        table[i + 1] = np.minimum.accumulate(best - steps) + steps  # insertions: each costs one more than its left neighbour
    return table


def errors(truths: Sequence[str], answers: Sequence[str]) -> tuple[Ints, Ints]:
    """Edits and length of each truth, in words and in characters: two of (N, 2)."""
    counts = np.array([[edits(t.split(), a.split()), edits(t, a)] for t, a in zip(truths, answers, strict=True)], np.int64)
    sizes = np.array([[len(t.split()), len(t)] for t in truths], np.int64)
    return counts.reshape(-1, 2), sizes.reshape(-1, 2)


def word_scores(truths: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """(N,) one less the word error rate of each utterance, at least 0."""
    found: NDArray[np.float64] = np.array(
        [1 - min(1.0, edits(t.split(), a.split()) / max(1, len(t.split()))) for t, a in zip(truths, answers, strict=True)]
    )
    return found


def metrics(truths: Sequence[str], answers: Sequence[str], *, seed: int) -> dict[str, Metric]:
    """Word and character error rate of all utterances together (edits over symbols of the truth: lower is better, may pass 1), mean word
    accuracy of an utterance, and the share without any error, each with a 95 % interval over utterances."""
    counts, sizes = errors(truths, answers)
    return {
        "word_accuracy": statistics.mean_metric(word_scores(truths, answers)),
        "wer": _rate(counts[:, 0], sizes[:, 0], seed),
        "cer": _rate(counts[:, 1], sizes[:, 1], seed),
        "exact": statistics.mean_metric((counts[:, 1] == 0).astype(float)),
    }


def _rate(counts: Ints, sizes: Ints, seed: int) -> Metric:
    """Sum of the one over sum of the other, with its bootstrap interval."""
    kinds, cells = np.unique(np.stack([counts, sizes], axis=1), axis=0, return_counts=True)
    value = float(counts.sum() / max(1, sizes.sum()))
    low, high = statistics.bootstrap(lambda drawn: (drawn @ kinds[:, 0]) / np.maximum(1, drawn @ kinds[:, 1]), cells, seed=seed)
    return Metric(value, min(low, value), max(high, value), len(counts))


NOTHING = "(nothing)"
"""Stands for a word that was left out, or that nobody said."""


def confusion(truths: Sequence[str], answers: Sequence[str], *, most: int = 12) -> tuple[list[str], list[list[int]]]:
    """How often each word was taken for each other, of the words that were mixed up most often: names, and counts (truth, answer)."""
    pairs: Counter[tuple[str, str]] = Counter()
    for truth, answer in zip(truths, answers, strict=True):
        pairs.update((a or NOTHING, b or NOTHING) for a, b in alignment(truth.split(), answer.split()))
    wrong: Counter[str] = Counter()
    for (a, b), n in pairs.items():
        if a != b:
            wrong.update({a: n, b: n})
    names = sorted(word for word, _ in wrong.most_common(most))
    return names, [[pairs[a, b] for b in names] for a in names]
