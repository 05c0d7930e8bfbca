"""Tokenizers trained on the corpus at hand: WordPiece, byte-level BPE, single characters; written as transformers reads them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import corpus
from warmstart.engine.corpus import Texts

Kind = Literal["wordpiece", "bpe", "characters"]

SAMPLE_CHARACTERS = 50_000_000
"""Of a larger corpus a seeded sample of about this many characters trains the tokenizer: more hardly changes the vocabulary."""

RESERVED = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
END, UNKNOWN = "<|endoftext|>", "<|unknown|>"


def train(texts: Texts, *, kind: Kind, size: int, lowercase: bool = False, seed: int = 0, characters: int = SAMPLE_CHARACTERS) -> Any:
    """A ``tokenizers.Tokenizer`` for these texts.

    ``wordpiece``: as BERT has it (Schuster & Nakajima 2012; Devlin et al. 2019), with ``[PAD] [UNK] [CLS] [SEP] [MASK]`` first.
    ``bpe``: on bytes, so that nothing is unknown (Radford et al. 2019), with ``<|endoftext|>`` first. ``characters``: those that
    occur, the most frequent where there are too many, with ``<|endoftext|>`` and ``<|unknown|>`` first.

    Args:
        texts: The corpus.
        kind: One of the three.
        size: Entries of the vocabulary at most, special ones included.
        lowercase: Lower-case, and strip accents, before anything else (``wordpiece`` alone).
        seed: Of the sample.
        characters: Size of the sample.

    Raises:
        DataError: There is no text.
    """

    def drawn() -> Iterator[str]:
        return corpus.sample(texts, characters=characters, seed=seed)

    if kind == "wordpiece":
        return _wordpiece(drawn, size, lowercase=lowercase)
    return _bpe(drawn(), size) if kind == "bpe" else _characters(drawn(), size)


def save(tokenizer: Any, folder: Path, *, max_length: int) -> None:
    """Write what ``AutoTokenizer.from_pretrained(folder)`` reads; it then cuts inputs to ``max_length`` tokens."""
    from transformers import PreTrainedTokenizerFast

    paired = tokenizer.token_to_id(RESERVED["mask_token"]) is not None
    special = RESERVED if paired else dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    if not paired and tokenizer.token_to_id(UNKNOWN) is not None:
        special = {**special, "unk_token": UNKNOWN}
    names = ["input_ids", *(["token_type_ids"] if paired else []), "attention_mask"]
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=names, clean_up_tokenization_spaces=False, **special
    ).save_pretrained(str(folder))


def load(folder: Path) -> Any:
    """The tokenizer of a body's folder, as transformers opens it (``.backend_tokenizer`` is that of ``tokenizers``).

    Raises:
        BackboneNotFound: There is none, or none of the fast kind.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        problem = "" if getattr(found, "backend_tokenizer", None) is not None else "it is not of the fast kind"
    except Exception as error:  # the tokenizers library raises bare Exception
        problem = str(error).strip().split("\n")[0][:200]
    if problem:
        raise BackboneNotFound(
            f"no tokenizer can be loaded from {folder}: {problem}", "tokenizer.json beside the weights", "copy it there from the original"
        )
    return found


def plain(tokenizer: Any) -> Any:
    """A copy of a ``tokenizers.Tokenizer`` that neither cuts nor pads. One that a folder holds may do both: MiniLM's, at 128 tokens."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokenizer.to_str())
    found.no_truncation()
    found.no_padding()
    return found


def fingerprint(tokenizer: Any) -> str:
    """Hash of what decides the token ids of a ``tokenizers.Tokenizer``."""
    state = json.loads(tokenizer.to_str())
    state.update(truncation=None, padding=None, post_processor=None)  # set anew when a folder is opened; no part of the text's own tokens
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _wordpiece(texts: Callable[[], Iterator[str]], size: int, *, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    # The library numbers inner characters in the order of a hash table, and ties between merges are broken by these numbers: given as
    # special tokens they get the same numbers in every process, and the same texts the same vocabulary.
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(normalizer.normalize_str(text))
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: max(1000, size // 2)]
    alphabet = sorted(character for character, _ in frequent if not character.isspace())
    inner = [f"##{character}" for character in alphabet]
    draft = Tokenizer(models.WordPiece(unk_token=RESERVED["unk_token"]))
    draft.normalizer, draft.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    special = [*RESERVED.values(), *inner]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    draft.train_from_iterator(texts(), trainer)
    tokenizer = Tokenizer(models.WordPiece(draft.get_vocab(), unk_token=RESERVED["unk_token"]))  # anew: there they count as special
    tokenizer.add_special_tokens(list(RESERVED.values()))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    ends = [(RESERVED[name], tokenizer.token_to_id(RESERVED[name])) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _bpe(texts: Iterator[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _characters(texts: Iterator[str], size: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(character for character, _ in counts.most_common(max(1, size - 2)))
    vocabulary = {token: number for number, token in enumerate([END, UNKNOWN, *kept])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.add_special_tokens([END, UNKNOWN])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
