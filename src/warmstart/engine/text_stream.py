"""Texts to learn from, batch by batch: encoded once, rows of like length together, the same for any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from warmstart.core import registry
from warmstart.core.errors import DataError
from warmstart.core.protocols import Encoded, Encoder, Input
from warmstart.engine import batches, corpus, examples, splits, store, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.learner import Corpus, Picture, Setting
from warmstart.engine.order import ByLength
from warmstart.engine.seeds import generator, seeded

WIDTH, DEPTH = {"tiny": 128, "small": 256, "base": 512}, {"tiny": 2, "small": 4, "base": 8}
HEAD_WIDTH = 64
FRAC_HELD, HELD_MOST = 0.1, 2_000


@dataclass(frozen=True)
class Rows:
    """Texts, and what is known of them: ``train`` and ``held`` are positions in ``inputs``, ``labels`` (N,) indices into ``names``."""

    inputs: list[Input]
    train: Tensor
    held: Tensor
    corpus: Corpus
    names: tuple[str, ...] = ()
    labels: Tensor | None = None


class TextStream:
    """Texts as ``warmstart.engine.streams.Stream`` wants them. Both views of a text are the text: dropout tells them apart."""

    unit, looked_at = "texts", 128  # a text costs as much as several small images

    def __init__(self, setting: Setting, rows: Rows, settings: Mapping[str, Any]) -> None:
        self.setting, self.settings, self._rows = setting, settings, rows
        self.corpus, self.names, self.train, self.n_held = rows.corpus, rows.names, rows.train, len(rows.held)
        self.labels = rows.labels
        self.held_labels = None if rows.labels is None else rows.labels[rows.held]
        self.encoder = _encoder(setting, rows, settings)
        self._encoded: Sequence[Encoded] = self.encoder.encode(rows.inputs)
        self._lengths = np.array([self.encoder.size(example) for example in self._encoded], dtype=np.int64)
        self._order = ByLength(rows.train.numpy(), self._lengths, settings["batch"], seed=setting.seed)

    @property
    def bytes(self) -> int:
        """Memory that the token ids take."""
        return sum(array.nbytes for example in self._encoded for array in example.values())

    def rows(self, step: int) -> Tensor:
        """Rows of the whole batch of a step, (B,)."""
        return self._order(step)

    def views(self, step: int, which: int, *, shift: int = 0) -> dict[str, Tensor]:
        """This process's texts of a step, padded as the whole batch needs it."""
        rows = self.rows(step)
        return self._batch(rows.roll(-shift)[self.setting.rank :: self.setting.world], int(self._lengths[rows.numpy()].max()))

    def known(self, rows: Tensor) -> dict[str, Tensor]:
        """These rows."""
        return self._batch(rows, int(self._lengths[rows.numpy()].max()))

    def held(self, start: int, stop: int) -> dict[str, Tensor]:
        """Held-out texts."""
        return self.known(self._rows.held[start:stop])

    def held_views(self, start: int, stop: int, which: int) -> dict[str, Tensor]:
        """Held-out texts, the same for every view."""
        return self.held(start, stop)

    def _batch(self, rows: Tensor, longest: int) -> dict[str, Tensor]:
        collated = self.encoder.collate([self._encoded[i] for i in rows.tolist()], length=batches.padded(longest))
        return {name: value.to(self.setting.device) for name, value in collated.items()}

    def body(self) -> nn.Module:
        """The body on the CPU: from the folder to start from, else an encoder with fresh weights that follow from the seed."""
        if self.setting.start is not None:
            body = store.load_body(self.setting.start)
        else:
            from transformers import BertConfig, BertModel

            store.quiet_transformers()
            with seeded(self.setting.seed):
                body = BertModel(BertConfig(**self.settings["body"]), add_pooling_layer=False)
        dropout = self.settings["dropout"]
        for module in body.modules():
            if isinstance(module, nn.Dropout) and dropout is not None:
                module.p = dropout
        return body.train()

    def pictures(self) -> Sequence[Picture]:
        """None: a text is no picture."""
        return ()

    def save(self, body: nn.Module, folder: Path) -> None:
        """Write the body and its tokenizer."""
        store.save_transformers(body, folder)
        self.encoder.save(folder)


def read(setting: Setting, *, labelled: bool) -> Rows:
    """Rows of a table, or sentences of plain text where no labels are needed, and which of them are held out.

    Raises:
        InputError: The source or a row is wrong, or there are too few.
    """
    first = _table(setting.data, setting, labelled) or _sentences(setting.data, setting)
    if setting.validation is not None:
        second = _table(setting.validation, setting, labelled) or _sentences(setting.validation, setting)
        n, m = len(first[0]), len(second[0])
        inputs, targets = [*first[0], *second[0]], None if first[1] is None or second[1] is None else [*first[1], *second[1]]
        train, held = torch.arange(n), n + _permutation(m, setting.seed)[:HELD_MOST]
    else:
        inputs, targets = first[0], first[1]
        if len(inputs) < 4:
            raise DataError(f"{first[2].source} has {len(inputs)} texts", "at least four, of which some are held out", "give more text")
        train, held = _split(inputs, targets, setting.seed)
    found = replace(first[2], hash=_hash(inputs, targets), items={"texts": len(train), "held-out texts": len(held)})
    if targets is None:
        return Rows(inputs, train, held, found)
    names = tuple(sorted(set(targets)))
    index = {name: i for i, name in enumerate(names)}
    return Rows(inputs, train, held, found, names, torch.tensor([index[t] for t in targets]))


Read = tuple[list[Input], list[str] | None, Corpus]


def _table(source: Any, setting: Setting, labelled: bool) -> Read | None:
    """Rows of a table; None for plain text, which has no labels."""
    plain = isinstance(source, (str, Path)) and (Path(source).is_dir() or Path(source).suffix.lower() not in TABLES or "*" in str(source))
    plain = plain or (isinstance(source, (list, tuple)) and all(isinstance(item, str) for item in source))
    if plain and not labelled:
        return None
    modality = registry.create("modalities", "text", options=setting.modality_options)
    task = registry.create("tasks", "classification") if labelled else None
    found = examples.read_examples(
        source, modality=modality, task=task, given=setting.column, group=None, skip_bad=setting.skip_bad, labelled=labelled
    )
    usable = found.targets is not None and all(isinstance(t, (str, int, bool)) for t in found.targets)
    targets = [str(t) for t in found.targets or []] if usable else None
    return found.inputs, targets, Corpus(found.source, "", {}, found.left_out, tuple(found.notes))


TABLES = (*corpus.TABLES, *corpus.HELD_WHOLE)


def _sentences(source: Any, setting: Setting) -> Read:
    texts = Texts(source, column=setting.column, skip_bad=setting.skip_bad)
    survey = texts.survey()
    inputs: list[Input] = [(sentence,) for piece in texts.pieces() for sentence in corpus.sentences(piece.text)]
    return inputs, None, Corpus(texts.name, survey.hash, {}, survey.left_out, tuple(texts.notes))


def _split(inputs: list[Input], targets: list[str] | None, seed: int) -> tuple[Tensor, Tensor]:
    """A tenth is held out; stratified where there are labels."""
    n_held = min(max(2, int(FRAC_HELD * len(inputs))), HELD_MOST)
    if targets is not None:
        codes = np.unique(np.array(targets), return_inverse=True)[1]
        kept, held = splits.hold_out(codes, None, n_held / len(inputs), seed)
        return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.random.default_rng(seed).permutation(held))
    order = _permutation(len(inputs), seed)
    return order[n_held:].sort().values, order[:n_held]


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, 0, 0))


def _hash(inputs: Sequence[Input], targets: Sequence[str] | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for i, value in enumerate(inputs):
        digest.update(repr((value, None if targets is None else targets[i])).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def decide(options: Any, setting: Setting, size: str) -> dict[str, Any]:
    """Settings that decide the tokenizer and, where none is given, the body."""
    found: dict[str, Any] = {"modality": "text", "max_length": options.max_length, "vocabulary": options.vocabulary, "body": None}
    if setting.start is None:
        width, depth = options.width or WIDTH[size], options.depth or DEPTH[size]
        found["body"] = {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": max(1, width // HEAD_WIDTH),
            "intermediate_size": 4 * width,
            "max_position_embeddings": max(128, options.max_length),
        }
    return found


def _encoder(setting: Setting, rows: Rows, settings: Mapping[str, Any]) -> Encoder:
    """The tokenizer of the body to start from, or WordPiece trained on the texts to learn from; the body's vocabulary is filled in."""
    modality = registry.create("modalities", "text", options=setting.modality_options)
    folder = setting.start
    if folder is None:
        texts = Texts([text for i in rows.train.tolist() for text in rows.inputs[i]])
        tokenizer = vocabulary.train(texts, kind="wordpiece", size=settings["vocabulary"], lowercase=True, seed=setting.seed)
        folder = setting.folder / "tokenizer"
        vocabulary.save(tokenizer, folder, max_length=settings["max_length"])
        settings["body"]["vocab_size"] = tokenizer.get_vocab_size()
    found: Encoder = modality.encoder(folder, settings["max_length"])
    return found
