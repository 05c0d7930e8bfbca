"""Text from a causal language model: sampling with a key-value cache, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warmstart.core.errors import BadOption, DataError
from warmstart.engine import device as devices
from warmstart.engine import store, vocabulary


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    ``temperature`` divides the logits; 0 takes the likeliest token. ``top_k`` keeps the likeliest k; ``top_p`` (Holtzman et al. 2020) the
    fewest whose probabilities reach p. At most ``max_tokens`` are made. Equal seeds give equal texts.

    Raises:
        BadOption: A number is out of range.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    max_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "temperature": (0 <= self.temperature < float("inf"), "0 or more", "give for example --temperature 0.8"),
            "top_k": (self.top_k is None or self.top_k > 0, "1 or more", "give for example --top-k 40"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "more than 0, at most 1", "give for example --top-p 0.9"),
            "max_tokens": (self.max_tokens > 0, "1 or more", "give for example --max-tokens 200"),
        }
        for name, (fine, expected, do) in checks.items():
            if not fine:
                raise BadOption(f"{name.replace('_', '-')} = {getattr(self, name)}", expected, do)


@dataclass
class Generated:
    """A finished text: ``stopped`` is ``end`` (the model ended the text) or ``length``; ``notes`` say what had to be left out."""

    prompt: str
    text: str = ""
    tokens: int = 0
    stopped: str = "length"
    notes: list[str] = field(default_factory=list)


class Writer:
    """A causal language model, ready to write.

    Args:
        model: A transformers model; it is used where it lies, in evaluation mode.
        tokenizer: Its ``tokenizers.Tokenizer``.
        context: Tokens that it can look back to.
        end: The token that ends a text, and begins one.
        cache: Keep keys and values of earlier tokens; without it every token reads the whole context anew, and the texts are the same.
    """

    def __init__(self, model: Any, tokenizer: Any, *, context: int, end: int | None, cache: bool = True) -> None:
        self.model, self.tokenizer, self.context, self.end, self.cache = model, tokenizer, context, end, cache
        name = getattr(tokenizer.model, "unk_token", None)
        self.unknown = None if name is None else tokenizer.token_to_id(name)

    def write(self, prompt: str, sampling: Sampling) -> Generated:
        """The whole text at once.

        Raises:
            DataError: The vocabulary has no token for something in the prompt.
        """
        done = Generated(prompt)
        for _ in self.stream(prompt, sampling, done):
            pass
        return done

    def stream(self, prompt: str, sampling: Sampling, done: Generated) -> Iterator[str]:
        """The text in pieces as they come; ``done`` is filled on the way.

        Raises:
            DataError: The vocabulary has no token for something in the prompt.
        """
        ids = self._encoded(prompt, done)
        known = len(self.tokenizer.decode(ids))
        for token in self._tokens(ids, sampling):
            if token == self.end:
                done.stopped = "end"
                break
            ids.append(token)
            done.tokens += 1
            text = self.tokenizer.decode(ids)[known:]
            if not text.endswith("\ufffd"):  # the rest of a character of several bytes is to come
                yield text[len(done.text) :]
                done.text = text
        if rest := self.tokenizer.decode(ids)[known + len(done.text) :]:
            done.text += rest
            yield rest

    def _encoded(self, prompt: str, done: Generated) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        if self.unknown is not None and self.unknown in ids:
            known = self.tokenizer.get_vocab()
            lacking = ", ".join(map(repr, sorted({c for c in prompt if c not in known})[:10]))
            raise DataError(
                f"the vocabulary has no token for {ids.count(self.unknown)} places of the prompt" + (f": {lacking}" if lacking else ""),
                "characters that were in the training text",
                "leave them out of the prompt",
            )
        if len(ids) > self.context:
            done.notes.append(f"the prompt has {len(ids):,} tokens; the model reads the last of them, its context being {self.context:,}")
        if not ids and self.end is None:
            raise DataError("the prompt is empty, and this vocabulary has no token that begins a text", "some text", "give a prompt")
        return ids or [self.end or 0]

    @torch.inference_mode()
    def _tokens(self, ids: list[int], sampling: Sampling) -> Iterator[int]:
        """New tokens for ever, up to the limit. A full context loses its first quarter and is read anew."""
        random = torch.Generator().manual_seed(sampling.seed)
        self.model.eval()
        window, cache = list(ids), None
        fresh = window
        for _ in range(sampling.max_tokens):
            if len(window) > self.context:
                window = window[-max(1, self.context - self.context // 4) :]
                fresh, cache = window, None
            inputs = torch.tensor([fresh if self.cache else window], device=self.model.device)
            found = self.model(input_ids=inputs, past_key_values=cache, use_cache=self.cache, logits_to_keep=1)
            cache = found.past_key_values if self.cache else None
            token = pick(found.logits[0, -1].float().cpu(), sampling, random)
            window, fresh = [*window, token], [token]
            yield token


def pick(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """The next token, from ``logits (V,)``."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], float("-inf"))
    probabilities = logits.softmax(-1)
    if sampling.top_p is not None:
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities[order[outside]] = 0.0
    return int(torch.multinomial(probabilities, 1, generator=random))


def load(folder: Path, *, device: str = "auto", cache: bool = True) -> Writer:
    """A writer from a folder that ``AutoModelForCausalLM`` opens, such as one from ``pretrain``.

    Raises:
        BackboneNotFound: No causal language model can be opened there.
    """
    model: Any = store.load_causal(folder).to(devices.resolve(device))
    tokenizer = vocabulary.load(folder)
    context = int(getattr(model.config, "max_position_embeddings", 0) or 1024)
    return Writer(model, vocabulary.plain(tokenizer.backend_tokenizer), context=context, end=tokenizer.eos_token_id, cache=cache)


def generate(folder: str | Path, prompt: str, *, sampling: Sampling | None = None, device: str = "auto") -> str:
    """What a model that ``pretrain`` wrote adds to a prompt.

    Raises:
        BackboneNotFound: No causal language model can be opened there.
        DataError: The vocabulary has no token for something in the prompt.
    """
    return load(Path(folder), device=device).write(prompt, sampling or Sampling()).text
