"""The corpus of a masked language model: its tokenizer, its token files, and what is to be told of it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart.core.errors import BadOption
from warmstart.engine import corpus, masking, tokens, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.learner import Corpus, Setting
from warmstart.engine.masking import Vocabulary
from warmstart.engine.tokens import TokenFile

SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 1_000, 30_528
UNBOUNDED = 1_000_000
MANY_UNKNOWN = 0.01


@dataclass(frozen=True)
class Read:
    """Token files, the tokenizer of transformers and what masking knows of it, and what is to be told of the corpus."""

    train: TokenFile
    held: TokenFile
    tokenizer: Any
    vocabulary: Vocabulary
    told: Corpus


def read(setting: Setting, *, tokenizer: str | None, size: int | None, lowercase: bool, held: float) -> Read:
    """The corpus as token files. Its tokenizer is that of the body to go on from, the one in the folder ``tokenizer``, or trained on it.

    Args:
        setting: Says which corpus, and where files are kept.
        tokenizer: A folder.
        size: Entries of the trained vocabulary; None: 8 times the square root of the number of characters, from 1,000 to 30,528.
        lowercase: Whether the trained tokenizer lower-cases.
        held: Share that is set aside where there are no data to validate with.

    Raises:
        InputError: The corpus cannot be read, or is too small; the tokenizer does not fit.
    """
    texts = Texts(setting.data, column=setting.column, skip_bad=setting.skip_bad)
    survey = texts.survey()
    found = _tokenizer(setting, texts, tokenizer, size, lowercase=lowercase)
    aside = None if setting.validation is None else Texts(setting.validation, column=setting.column, skip_bad=setting.skip_bad)
    backend, kept = found.backend_tokenizer, setting.folder / "tokens"
    share = held if aside is None else 0.0
    files = tokens.build(texts, backend, folder=kept, sentences=corpus.sentences, held=share, seed=setting.seed)
    if aside is not None:
        files["held"] = tokens.build(aside, backend, folder=kept, sentences=corpus.sentences)["train"]
    train, left_out = files["train"], dict(survey.left_out)
    unknown = train.unknown / len(train.tokens)
    notes = list(texts.notes)
    if unknown > MANY_UNKNOWN:
        notes.append(f"{unknown:.1%} of the tokens are not in the vocabulary; another tokenizer or a larger vocabulary would help")
    items = {
        "documents": survey.documents,
        "sentences": len(train.sentences) - 1,
        "tokens": len(train.tokens),
        "held-out tokens": len(files["held"].tokens),
        "unknown tokens": train.unknown,
    }
    digest = survey.hash if aside is None else f"{survey.hash}-{aside.survey().hash}"
    told = Corpus(texts.name, digest, items, left_out, tuple(notes))
    return Read(train, files["held"], found, masking.vocabulary_of(found), told)


def _tokenizer(setting: Setting, texts: Texts, given: str | None, size: int | None, *, lowercase: bool) -> Any:
    """That of the body to go on from, a given one, or one trained on the corpus and kept for a resumed run.

    Raises:
        BadOption: It has no mask token, or no tokens that begin and end a row.
    """
    if setting.start is not None or given is not None:
        folder = setting.start or Path(str(given))
        found = vocabulary.load(folder)
    else:
        survey = texts.survey()
        size = size or min(LARGEST_VOCABULARY, max(SMALLEST_VOCABULARY, int(8 * math.sqrt(survey.characters))))
        key = f"tokenizer-{survey.hash[:16]}-{size}-{'lower' if lowercase else 'cased'}-{setting.seed}"
        folder = setting.folder / key
        if not (folder / "tokenizer.json").is_file():
            made = vocabulary.train(texts, kind="wordpiece", size=size, lowercase=lowercase, seed=setting.seed)
            draft = folder.with_name(f".{key}.{os.getpid()}")
            vocabulary.save(made, draft, max_length=UNBOUNDED)
            with suppress(OSError):  # another process was first
                draft.rename(folder)
        found = vocabulary.load(folder)
    ends = [(found.cls_token_id, found.bos_token_id), (found.sep_token_id, found.eos_token_id)]
    if found.mask_token_id is None or found.pad_token_id is None or any(end == (None, None) for end in ends):
        raise BadOption(
            f"the tokenizer in {folder} has no mask token, or none for the ends of a row",
            "a tokenizer of a masked model",
            "choose another; for a causal model use --objective gpt",
        )
    return found
