"""Token files: a corpus as flat arrays on disk that are mapped into memory, and an order to read them in that needs little of it.

A folder ``tokens-<key>`` holds, for the parts ``train`` and ``held``, ``<part>-tokens.bin`` (uint16, or uint32 for a large vocabulary),
``<part>-sentences.bin`` (int64: where in the tokens each sentence begins, and the end of the last) and ``<part>-documents.bin`` (int64:
the same of documents in sentences), all little-endian, and ``tokens.json``. The key is a hash of the texts and the tokenizer, so that
nothing is built twice and nothing stale is read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError, DiskFull
from warmstart.engine import store, vocabulary
from warmstart.engine.corpus import Texts

FORMAT, ABOUT = 2, "tokens.json"
CHARACTERS_AT_ONCE = 1_000_000
"""Tokenised at once; the tokenizer's own result takes about a hundred bytes a token."""

CHECKPOINT_EVERY = 32
"""So many of these make a place from which an interrupted build goes on."""

FEW_DOCUMENTS = 20
"""With fewer documents the held-out part is the end of the corpus, not whole documents drawn at random."""

MOST_HELD = 20_000
"""Held-out documents at most."""

Part = Literal["train", "held"]
Ints: TypeAlias = NDArray[np.int64]
Routed: TypeAlias = tuple[Part, int, str]


@dataclass(frozen=True)
class TokenFile:
    """A corpus as token ids, mapped from disk."""

    tokens: NDArray[Any]
    """(N,) token ids, uint16 or uint32, without special tokens."""
    sentences: Ints
    """(S + 1,) where each sentence begins in ``tokens``, and their end."""
    documents: Ints
    """(D + 1,) where each document begins in ``sentences``, and their end."""
    unknown: int
    """How many of the tokens stand for something that the vocabulary has no word for."""
    characters: int

    def document_bounds(self) -> Ints:
        """(D + 1,) where each document begins in ``tokens``, and their end."""
        return self.sentences[self.documents]


def build(
    texts: Texts,
    tokenizer: Any,
    *,
    folder: Path,
    sentences: Callable[[str], list[str]] | None = None,
    held: float = 0.0,
    seed: int = 0,
) -> dict[Part, TokenFile]:
    """Token files of a corpus, from ``folder`` where they are there already; an interrupted build goes on where it was.

    Processes that ask for the same at the same time wait for the first of them.

    Args:
        texts: The corpus.
        tokenizer: A ``tokenizers.Tokenizer``; it adds no special tokens here.
        folder: Where the files are kept.
        sentences: Cuts a piece of a document into sentences; None: a piece is one.
        held: Share that is set aside as ``"held"``: whole documents drawn at random, or the end of a corpus of fewer than 20 documents or
            of one that is read as a ``whole``.
        seed: Of that draw.

    Raises:
        DataError: There is no text.
        DiskFull: No space left.
    """
    survey = texts.survey()
    unit = "" if sentences is None else f"{sentences.__module__}.{sentences.__qualname__}"
    described = [FORMAT, survey.hash, vocabulary.fingerprint(tokenizer), unit, held, seed if held else 0, texts.whole]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]
    done = folder / f"tokens-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".tokens-{key}.lock"):
        if not (done / ABOUT).is_file():
            partial = folder / f"tokens-{key}.partial"
            _Build(vocabulary.plain(tokenizer), partial, sentences or _one).run(_routed(texts, held, seed))
            partial.rename(done)
    about = json.loads((done / ABOUT).read_text(encoding="utf-8"))
    parts: tuple[Part, ...] = ("train", "held") if held else ("train",)
    if any(not about["parts"][part]["tokens"] for part in parts):
        total = sum(about["parts"][part]["tokens"] for part in parts)
        given = f"the corpus {texts.name} holds {total:,} tokens, too few to set some aside" if held else f"{texts.name} holds no token"
        raise DataError(given, "more text", "give more text, or a file of its own to validate with")
    return {part: _open(done, part, about) for part in parts}


class Order:
    """A random order of ``n`` items for each epoch, decided by ``(seed, epoch)``, of which any stretch can be had at once.

    Neighbouring items form blocks; blocks are shuffled, then the items of every ``mixed`` blocks that have come together. So reading
    touches a bounded part of the disk at a time, and memory is one number a block, and one for each item of ``mixed`` blocks.
    """

    def __init__(self, n: int, *, seed: int, block: int = 4096, mixed: int = 16) -> None:
        self.n, self.seed, self.block, self.mixed = n, seed, max(1, block), max(1, mixed)
        self._blocks: tuple[int, Ints] = (-1, np.empty(0, np.int64))
        self._window: tuple[tuple[int, int], Ints] = ((-1, -1), np.empty(0, np.int64))

    def take(self, epoch: int, positions: Ints) -> Ints:
        """The items at these positions, each from 0 to n - 1, of the order of an epoch."""
        windows = np.asarray(positions, np.int64) // (self.block * self.mixed)
        found = np.empty(len(windows), np.int64)
        for window in np.unique(windows).tolist():
            here = windows == window
            found[here] = self._items(epoch, window)[np.asarray(positions, np.int64)[here] - window * self.block * self.mixed]
        return found

    def _items(self, epoch: int, window: int) -> Ints:
        if self._window[0] != (epoch, window):
            chosen = self._block_order(epoch)[window * self.mixed : (window + 1) * self.mixed]
            items = (chosen[:, None] * self.block + np.arange(self.block)).reshape(-1)
            items = items[items < self.n]
            self._window = (epoch, window), np.random.default_rng((self.seed, epoch, 1 + window)).permutation(items)
        return self._window[1]

    def _block_order(self, epoch: int) -> Ints:
        if self._blocks[0] != epoch:
            count = -(-self.n // self.block)
            order = np.random.default_rng((self.seed, epoch, 0)).permutation(count)
            if self.n % self.block:  # the short block stays last, so that every window before it is full
                order = np.append(order[order != count - 1], count - 1)
            self._blocks = epoch, order
        return self._blocks[1]


class _Build:
    """One build: three growing files for each part, and now and then a record of how far they are."""

    def __init__(self, tokenizer: Any, folder: Path, split: Callable[[str], list[str]]) -> None:
        self.tokenizer, self.folder, self.split = tokenizer, folder, split
        self.dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4")
        token = getattr(tokenizer.model, "unk_token", None)
        self.unknown = -1 if token is None else tokenizer.token_to_id(token)
        self.pieces = 0
        empty = {"tokens": 0, "sentences": 0, "documents": 0, "unknown": 0, "characters": 0, "last": -1}
        self.parts: dict[Part, dict[str, int]] = {"train": dict(empty), "held": dict(empty)}

    def run(self, routed: Iterator[Routed]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, ValueError):
            progress = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
            self.pieces, self.parts = progress["pieces"], progress["parts"]
        self._cut_back()
        for number, batch in enumerate(_batches(itertools.islice(routed, self.pieces, None)), 1):
            for part in self.parts:
                self._append(part, [(text, document) for name, document, piece in batch if name == part for text in self.split(piece)])
                self.parts[part]["characters"] += sum(len(piece) for name, _, piece in batch if name == part)
            self.pieces += len(batch)
            if number % CHECKPOINT_EVERY == 0:
                store.write_json(self.folder / "progress.json", {"pieces": self.pieces, "parts": self.parts})
        for part, counts in self.parts.items():
            self._write(part, "sentences", np.array([counts["tokens"]]))
            self._write(part, "documents", np.array([counts["sentences"]]))
        store.write_json(self.folder / ABOUT, {"dtype": self.dtype.str, "parts": self.parts})
        (self.folder / "progress.json").unlink(missing_ok=True)

    def _append(self, part: Part, rows: list[tuple[str, int]]) -> None:
        """Tokens of (sentence, number of its document)."""
        if not rows:
            return
        counts = self.parts[part]
        encoded = [e.ids for e in self.tokenizer.encode_batch_fast([text for text, _ in rows], add_special_tokens=False)]
        lengths = np.array([len(ids) for ids in encoded], np.int64)
        kept = lengths > 0  # a sentence of control characters alone has no token
        ids = np.fromiter((i for found in encoded for i in found), self.dtype, int(lengths.sum()))
        documents = np.array([document for _, document in rows])[kept]
        begins = np.flatnonzero(np.diff(documents, prepend=counts["last"]))
        self._write(part, "tokens", ids)
        self._write(part, "sentences", (counts["tokens"] + np.cumsum(lengths) - lengths)[kept])
        self._write(part, "documents", counts["sentences"] + begins)
        counts["tokens"] += len(ids)
        counts["sentences"] += len(documents)
        counts["documents"] += len(begins)
        counts["unknown"] += int((ids == self.unknown).sum())
        counts["last"] = int(documents[-1]) if len(documents) else counts["last"]

    def _write(self, part: Part, name: str, values: NDArray[Any]) -> None:
        path = _path(self.folder, part, name)
        try:
            with path.open("ab") as file:
                file.write(values.astype(self.dtype if name == "tokens" else "<i8").tobytes())
        except OSError as error:
            if error.errno in store.FULL:
                raise DiskFull(f"no space left while writing {path}", do="free some space and run the same command again") from None
            raise

    def _cut_back(self) -> None:
        """Take away what was written after the last record of progress."""
        for part, counts in self.parts.items():
            for name in ("tokens", "sentences", "documents"):
                path = _path(self.folder, part, name)
                path.touch()
                os.truncate(path, counts[name] * (self.dtype.itemsize if name == "tokens" else 8))


def _routed(texts: Texts, held: float, seed: int) -> Iterator[Routed]:
    """Every piece with its part and the number of its document."""
    survey, document, seen = texts.survey(), 0, 0
    by_document = held > 0 and not texts.whole and survey.documents >= FEW_DOCUMENTS
    count = min(MOST_HELD, max(1, round(survey.documents * held)))
    aside = set(random.Random(seed).sample(range(survey.documents), count)) if by_document else set()  # noqa: S311 - no secret
    border = survey.characters if by_document or not held else int(survey.characters * (1 - held))
    for piece in texts.pieces():
        at = _line_end(piece.text, border - seen) if seen < border < seen + len(piece.text) else None
        if at is not None:
            yield "train", document, piece.text[:at]
            yield "held", document, piece.text[at:]
        else:
            yield "held" if document in aside or seen >= border else "train", document, piece.text
        document, seen = document + piece.last, seen + len(piece.text)


def _line_end(text: str, at: int) -> int:
    """The first place from ``at`` on where a line ends, or else a word, or ``at`` itself."""
    for mark in ("\n", " "):
        found = text.find(mark, at)
        if found >= 0:
            return found + 1
    return at


def _batches(routed: Iterator[Routed]) -> Iterator[list[Routed]]:
    held: list[Routed] = []
    size = 0
    for piece in routed:
        held.append(piece)
        size += len(piece[2])
        if size >= CHARACTERS_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held


def _one(text: str) -> list[str]:
    return [text]


def _path(folder: Path, part: Part, name: str) -> Path:
    return folder / f"{part}-{name}.bin"


def _open(folder: Path, part: Part, about: dict[str, Any]) -> TokenFile:
    counts = about["parts"][part]
    kinds = {"tokens": np.dtype(about["dtype"]), "sentences": np.dtype("<i8"), "documents": np.dtype("<i8")}
    arrays: dict[str, Any] = {name: np.memmap(_path(folder, part, name), kind, "r") for name, kind in kinds.items()}
    return TokenFile(**arrays, unknown=counts["unknown"], characters=counts["characters"])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes waiting until the block ends."""
    with path.open("w") as file:
        with suppress(ImportError):  # Windows has no advisory locks of this kind, so no protection either
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
