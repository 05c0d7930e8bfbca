"""Text, or pairs of texts, tokenised by the backbone's own tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.core.errors import BackboneNotFound, BadOption, ColumnNotFound, nearest
from warmstart.core.protocols import Encoded, Input
from warmstart.engine.tfidf import Tfidf

if TYPE_CHECKING:
    from torch import Tensor

    from warmstart.engine.draft import Table

TEXT_NAMES = (
    *("text", "sentence", "review", "content", "body", "question", "utterance", "comment", "message", "query", "tweet", "post"),
    *("document", "description", "abstract", "summary", "headline", "title"),
)
PAIR_NAMES = (
    *(("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2")),
    *(("text_a", "text_b"), ("sentence_a", "sentence_b"), ("query", "passage"), ("question", "passage"), ("question", "sentence")),
    *(("question", "answer"), ("question", "context")),
)
SAMPLE_ROWS = 2_000
MAX_CHARACTERS_PER_TOKEN = 100
"""A text of a million characters is cut to this many for each token that is kept, before it costs a gigabyte to tokenise."""
ENCODE_ROWS = 1_000
SEPARATOR = " [SEP] "


@dataclass(frozen=True)
class Options:
    """Text has no options."""


class Part:
    """The modality of strings: inputs are ``(text,)`` or ``(text, text_pair)``."""

    name = "text"
    plural = "texts"
    roles: tuple[str, ...] = ("text", "text_pair")
    objective = "bert"
    default_backbone: str | None = "minilm"
    unit = "tokens"

    def __init__(self, options: Options) -> None:
        self.options = options

    def read(self, source: Any, *, skip_bad: bool) -> Table | None:
        """None: text stands in tables."""
        return None

    def matches(self, columns: Mapping[str, Sequence[Any]], *, folder: Path) -> bool:
        """Whether a column holds more strings than numbers."""
        return any(_is_text(values) for values in columns.values())

    def load(self, values: Sequence[Input], *, folder: Path, body: Path | None) -> list[Input]:
        """The strings as they are."""
        return list(values)

    def infer(self, columns: Mapping[str, Sequence[Any]], given: Mapping[str, str]) -> dict[str, str]:
        """Roles by well-known names, else the column of running text; a pair only when given, or for well-known pairs of names.

        Raises:
            ColumnNotFound: No column holds text.
        """
        if "text" in given:
            return dict(given)
        free = {name: values for name, values in columns.items() if name not in given.values()}
        texts = {name: values for name, values in free.items() if _is_text(values)}
        for pool in (texts, free):  # a column named "text" is meant, even if it holds but a year
            named = _by_name({name.strip().casefold(): name for name in pool}, pairs=not given)
            if named:
                return {**named, **given}
        if not texts:
            raise ColumnNotFound(
                "no column holds text", f"columns: {', '.join(map(repr, list(columns)[:20]))}", "name it: --column text=NAME"
            )
        return {"text": max(texts, key=lambda name: _looks_like_prose(texts[name])), **given}

    def check(self, values: Sequence[Any]) -> str | None:
        """``"missing text"``, ``"not a string"``, ``"empty text"`` or ``"broken Unicode"``, or None when the input can be used."""
        for value in values:
            if value is None or (isinstance(value, float) and value != value):
                return "missing text"
            if not isinstance(value, str):
                return "not a string"
            if not value.strip():
                return "empty text"
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                return "broken Unicode"  # half of a surrogate pair: has no UTF-8 form, so no tokenizer takes it
        return None

    def notes(self, values: Sequence[Input]) -> list[str]:
        """Nothing."""
        return []

    def content(self, value: Input) -> bytes:
        """The texts as JSON: ``("a", "b")`` differs from ``("ab",)``."""
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def show(self, value: Input) -> str:
        """The texts, a vertical bar between the two of a pair."""
        return " | ".join(map(str, value))

    def where(self, value: Input) -> str:
        """Nothing: a text's row says enough."""
        return ""

    def picture(self, value: Input) -> str:
        """Nothing: a text is shown itself."""
        return ""

    def extent(self, value: Input) -> float | None:
        """None: only a tokenizer can tell."""
        return None

    def encoder(self, folder: Path, max_length: int) -> TextEncoder:
        """The tokenizer in ``folder``; texts are cut to ``max_length`` tokens, special ones included.

        Raises:
            BackboneNotFound: The folder holds no tokenizer that can be loaded.
        """
        return TextEncoder(folder, max_length)

    def featurizer(self, options: Mapping[str, Any]) -> TextFeaturizer:
        """TF-IDF of words and characters; options ``max_words`` and ``max_characters`` bound the two vocabularies.

        Raises:
            BadOption: An option that it does not have.
        """
        known = ("max_words", "max_characters")
        for name in options:
            if name not in known:
                raise BadOption(f"no option {name!r}.{nearest(name, known)}", f"known: {', '.join(known)}", "correct the name")
        return TextFeaturizer(Tfidf(**options))

    def load_featurizer(self, folder: Path) -> TextFeaturizer:
        """The features that ``TextFeaturizer.save`` wrote."""
        return TextFeaturizer(Tfidf.load(folder))


def _by_name(columns: Mapping[str, str], *, pairs: bool) -> dict[str, str]:
    """Roles of the first well-known pair or name among ``columns``, lower-case name to name."""
    for first, second in PAIR_NAMES if pairs else ():
        if first in columns and second in columns:
            return {"text": columns[first], "text_pair": columns[second]}
    return next(({"text": columns[name]} for name in TEXT_NAMES if name in columns), {})


def _is_text(values: Sequence[Any]) -> bool:
    """Whether most values that are there are strings, and not numbers."""
    sample = [v for v in values[:SAMPLE_ROWS] if v is not None and v != ""]
    return sum(isinstance(v, str) and not re.fullmatch(r"\s*[-+]?[\d.,]*(e[-+]?\d+)?\s*", v) for v in sample) * 2 > len(sample)


def _looks_like_prose(values: Sequence[Any]) -> tuple[bool, float]:
    """Several words, or a script without spaces, rank before length: an identifier or an address may be longer than the text."""
    sample = [v for v in values[:SAMPLE_ROWS] if isinstance(v, str)]
    prose = sum(len(v.split()) > 1 or not v.isascii() for v in sample) * 2 > len(sample)
    return prose, sum(map(len, sample)) / len(sample)


def _longest(folder: Path, tokenizer: Any, asked: int) -> int:
    """``asked``, or fewer where the body has fewer positions or its tokenizer says that it takes no more."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a tokenizer alone
        config = {}
    found = [config.get("max_position_embeddings"), config.get("n_positions"), tokenizer.model_max_length]
    return int(min([asked, *(n for n in found if isinstance(n, int) and n > 0)]))


class TextEncoder:
    """A backbone's tokenizer, without padding: examples stay ragged until they are collated."""

    def __init__(self, folder: Path, max_length: int) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except Exception as error:  # the tokenizers library raises bare Exception
            reason = str(error).strip().split("\n")[0][:200]
            raise BackboneNotFound(
                f"no tokenizer can be loaded from {folder}: {reason}",
                "tokenizer.json and tokenizer_config.json beside the weights",
                "download the backbone again, with its tokenizer files",
            ) from error
        self.max_length = _longest(folder, self._tokenizer, max_length)
        pads = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        self._pad_id = next((int(p) for p in pads if p is not None), 0)  # GPT-2 and Llama have no padding token
        self.fingerprint = self._fingerprint()

    def encode(self, values: Sequence[Input]) -> list[Encoded]:
        """``input_ids (T,)``, and ``token_type_ids (T,)`` where the tokenizer makes them; the longer text of a pair is cut."""
        encoded: list[Encoded] = []
        for start in range(0, len(values), ENCODE_ROWS):  # a tokenizer's own result takes kilobytes a row
            encoded.extend(self._encode_chunk(values[start : start + ENCODE_ROWS]))
        return encoded

    def _encode_chunk(self, values: Sequence[Input]) -> list[Encoded]:
        limit = self.max_length * MAX_CHARACTERS_PER_TOKEN
        texts = [[text[:limit] for text in role] for role in zip(*values, strict=True)]
        arrays = self._tokenizer(
            *texts, truncation=True, max_length=self.max_length, padding=False, return_attention_mask=False, verbose=False
        )
        return [
            {name: np.array(ids, dtype=np.int64) for name, ids in zip(arrays, row, strict=True)}
            for row in zip(*arrays.values(), strict=True)
        ]

    def size(self, example: Encoded) -> int:
        """Its tokens."""
        return len(example["input_ids"])

    def collate(self, examples: Sequence[Encoded], *, length: int = 0) -> dict[str, Tensor]:
        """Padded on the right to the longest example, or to ``length``: every array (B, T), and ``attention_mask (B, T)``."""
        import torch

        lengths = np.array([len(example["input_ids"]) for example in examples])
        # Rounding up must not pass the positions that the body has: an example that was truncated is as long as can be.
        longest = max(int(lengths.max()), min(length, self.max_length))
        real = np.arange(longest)[None, :] < lengths[:, None]  # (B, T)
        batch = {"attention_mask": torch.from_numpy(real.astype(np.int64))}
        for name in examples[0]:
            padded = np.full(real.shape, self._pad_id if name == "input_ids" else 0, dtype=np.int64)
            padded[real] = np.concatenate([example[name] for example in examples])
            batch[name] = torch.from_numpy(padded)
        return batch

    def save(self, folder: Path) -> None:
        """Write the files that ``AutoTokenizer.from_pretrained(folder)`` reads."""
        self._tokenizer.model_max_length = self.max_length  # what transformers.pipeline truncates to
        self._tokenizer.save_pretrained(str(folder))

    def _fingerprint(self) -> str:
        """Hash of what decides the token ids. The same for a tokenizer that was saved and loaded, whose files may differ in form."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            state: Any = [sorted(self._tokenizer.get_vocab().items()), self._tokenizer.special_tokens_map]
        else:
            state = json.loads(backend.to_str())
            state.update(truncation=None, padding=None)  # set anew at every call
        described = json.dumps([type(self._tokenizer).__name__, self.max_length, state], sort_keys=True, default=str)
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()


class TextFeaturizer:
    """TF-IDF features of the classic rung; the two texts of a pair are joined by a separator."""

    def __init__(self, tfidf: Tfidf) -> None:
        self._tfidf = tfidf

    def fit(self, values: Sequence[Input]) -> Any:
        """Learn the vocabularies; the features of ``values``: (N, F) float32, sparse."""
        return self._tfidf.fit(_joined(values))

    def transform(self, values: Sequence[Input]) -> Any:
        """Features (N, F) float32, sparse."""
        return self._tfidf.transform(_joined(values))

    def save(self, folder: Path) -> None:
        """Write ``tfidf.safetensors`` and ``tfidf.json``."""
        self._tfidf.save(folder)


def _joined(values: Sequence[Input]) -> list[str]:
    return [SEPARATOR.join(value) for value in values]
