"""TF-IDF of word and character n-grams, with bounded memory, saved as plain numbers and strings.

The values are those of scikit-learn's ``TfidfVectorizer(sublinear_tf=True)`` (Salton & Buckley 1988: 1 + ln tf, times smoothed idf, rows
of length 1), for words and for ``analyzer="char_wb"``. Three differences: character n-grams are made once for each different word of a
chunk and summed by a sparse product, which is several times faster; rows are counted in chunks, so that memory does not grow with the
number of different n-grams in a row; and vocabularies are chosen by the number of documents.
"""

from __future__ import annotations

import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DamagedModel

CHUNK_ROWS = 4_096
MAX_CHARACTERS = 20_000
"""Longer texts are cut: a bag of n-grams has long said what it can by then."""
MAX_SEEN_TERMS = 2_000_000
"""Terms first met later than this many others are too rare to matter, and would cost memory."""
TOKEN = re.compile(r"\w+|[^\w\s]")
WORD_NGRAM_MAX, CHARACTER_NGRAM_MIN, CHARACTER_NGRAM_MAX = 2, 2, 5
BLOCKS = ("words", "characters")

Vocabulary: TypeAlias = dict[str, int]
Counter: TypeAlias = Callable[[Sequence[str], Vocabulary, bool], Any]


class Tfidf:
    """Word 1- to 2-grams and character 2- to 5-grams within words; at most ``max_words`` and ``max_characters`` of them."""

    def __init__(self, max_words: int = 50_000, max_characters: int = 100_000) -> None:
        self._limits = (int(max_words), int(max_characters))
        self._vocabularies: list[Vocabulary] = []
        self._idf: list[NDArray[np.float32]] = []

    def fit(self, texts: Sequence[str]) -> Any:
        """Choose the n-grams that most texts have (two at least, from 1,000 texts on), weigh them, and return ``transform(texts)``."""
        learned = [_learn(texts, count, limit) for count, limit in zip(COUNTERS, self._limits, strict=True)]
        self._vocabularies, self._idf = [vocabulary for vocabulary, _, _ in learned], [idf for _, idf, _ in learned]
        return _stacked(zip(*(chunks for _, _, chunks in learned), strict=True))

    def transform(self, texts: Sequence[str]) -> Any:
        """Features (N, F) as a float32 CSR matrix: words, then characters."""
        blocks = list(zip(COUNTERS, self._vocabularies, self._idf, strict=True))
        return _stacked([_weighted(count(chunk, vocabulary, False), idf) for count, vocabulary, idf in blocks] for chunk in _chunks(texts))

    def save(self, folder: Path) -> None:
        """Write ``tfidf.safetensors`` (weights) and ``tfidf.json`` (n-grams in the order of their columns)."""
        from warmstart.engine import store

        store.write_tensors(folder / "tfidf.safetensors", dict(zip(BLOCKS, self._idf, strict=True)))
        store.write_json(folder / "tfidf.json", {name: list(v) for name, v in zip(BLOCKS, self._vocabularies, strict=True)})

    @classmethod
    def load(cls, folder: Path) -> Tfidf:
        """What ``save`` wrote; features are the same to the bit.

        Raises:
            DamagedModel: A file is missing or is not whole.
        """
        from warmstart.engine import store

        idf = store.read_tensors(folder / "tfidf.safetensors")
        try:
            terms = json.loads((folder / "tfidf.json").read_text(encoding="utf-8"))
            loaded = cls()
            loaded._vocabularies = [{term: i for i, term in enumerate(terms[name])} for name in BLOCKS]
            loaded._idf = [idf[name].numpy() for name in BLOCKS]
        except (OSError, ValueError, KeyError) as error:
            raise DamagedModel(f"{folder / 'tfidf.json'} cannot be read: {error}", "the file as it was written", "train again") from error
        return loaded


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + CHUNK_ROWS] for start in range(0, max(1, len(texts)), CHUNK_ROWS))


def _stacked(chunks: Iterable[Sequence[Any]]) -> Any:
    """Blocks side by side, chunks below one another."""
    from scipy import sparse

    rows = [sparse.hstack(blocks, format="csr", dtype=np.float32) for blocks in chunks]
    return sparse.vstack(rows, format="csr") if len(rows) > 1 else rows[0]


def _learn(texts: Sequence[str], count: Counter, limit: int) -> tuple[Vocabulary, NDArray[np.float32], list[Any]]:
    """The chosen terms in alphabetical order, their weights (F,), and the weighted features chunk by chunk."""
    seen: Vocabulary = {}
    chunks = [count(chunk, seen, True) for chunk in _chunks(texts)]
    in_documents = np.zeros(len(seen), dtype=np.int64)
    for chunk in chunks:
        in_documents += np.bincount(chunk.indices, minlength=len(seen))
    common = np.flatnonzero(in_documents >= (2 if len(texts) >= 1_000 else 1))
    common = common[np.argsort(-in_documents[common], kind="stable")][:limit]
    terms = list(seen)
    chosen = np.array(sorted(common.tolist(), key=terms.__getitem__), dtype=np.int64)
    idf = (np.log((1 + len(texts)) / (1 + in_documents[chosen])) + 1).astype(np.float32)
    for i, chunk in enumerate(chunks):  # one at a time: counts of every term seen are the largest thing here
        chunk.resize(chunk.shape[0], len(seen))
        chunks[i] = _weighted(chunk[:, chosen], idf)
    return {terms[column]: i for i, column in enumerate(chosen)}, idf, chunks


def _weighted(counts: Any, idf: NDArray[np.float32]) -> Any:
    """1 + ln tf, times idf, each row scaled to length 1; in place."""
    counts.sort_indices()  # one order of summation, whatever the order in which words were met
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    lengths = np.sqrt(np.bincount(rows, weights=counts.data**2, minlength=counts.shape[0]))
    counts.data /= lengths[rows].astype(np.float32)
    return counts


def _count_words(texts: Sequence[str], vocabulary: Vocabulary, grow: bool) -> Any:
    return _count((_word_terms(text) for text in texts), vocabulary, grow)


def _count_characters(texts: Sequence[str], vocabulary: Vocabulary, grow: bool) -> Any:
    """N-grams of a text are those of its words: (N, W) words times (W, F) n-grams of each different word."""
    words: Vocabulary = {}
    by_word = _count((text[:MAX_CHARACTERS].lower().split() for text in texts), words, True)
    return by_word @ _count(map(_character_terms, words), vocabulary, grow)


def _word_terms(text: str) -> list[str]:
    words = TOKEN.findall(text[:MAX_CHARACTERS].lower())
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


def _character_terms(word: str) -> list[str]:
    padded = f" {word} "
    longest = min(CHARACTER_NGRAM_MAX, len(padded))
    return [padded[i : i + n] for n in range(CHARACTER_NGRAM_MIN, longest + 1) for i in range(len(padded) - n + 1)]


def _count(documents: Iterable[Iterable[str]], vocabulary: Vocabulary, grow: bool) -> Any:
    """Times that each term of ``vocabulary`` occurs in each document: (N, F) CSR, float32; ``grow`` adds the terms it meets."""
    from scipy import sparse

    columns, ends = array("i"), array("l", [0])
    for terms in documents:
        if grow and len(vocabulary) < MAX_SEEN_TERMS:
            columns.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
        else:
            columns.extend([vocabulary[term] for term in terms if term in vocabulary])
        ends.append(len(columns))
    counts = sparse.csr_matrix(
        (np.ones(len(columns), dtype=np.float32), np.asarray(columns), np.asarray(ends)), shape=(len(ends) - 1, len(vocabulary))
    )
    counts.sum_duplicates()
    return counts


COUNTERS: tuple[Counter, Counter] = (_count_words, _count_characters)
