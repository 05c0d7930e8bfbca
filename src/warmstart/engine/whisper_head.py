"""Whisper's decoder as a head over its encoder's last state (Radford et al. 2023): taught token by token, answering by beam search.

Shapes: B utterances, K beams, T encoder frames, L tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import store, transcripts, vocabulary

PREFIXES = ("model.decoder.", "decoder.")
MOST_TOKENS = 224
"""Of an answer: half of what the decoder has positions for, as in the original code."""
IGNORED = -100
LR = 5e-5
"""The decoder knows its work: it learns slowly."""


class Head(nn.Module):
    """``settings`` are plain JSON values: ``kind, points, config, prompt, end, suppress, suppress_first, letters, beam, case,
    punctuation``. The tokenizer's own JSON lies in the buffer ``tokenizer``, ``letters`` bytes of it, so that a model folder holds all."""

    tokenizer: Tensor

    def __init__(self, settings: dict[str, Any]) -> None:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperDecoder

        super().__init__()
        self.settings = settings
        self.points = tuple(settings["points"])
        self.lr = LR
        self.decoder = WhisperDecoder(WhisperConfig.from_dict(settings["config"]))
        self.register_buffer("tokenizer", torch.zeros(int(settings["letters"]), dtype=torch.uint8))
        self._writing = transcripts.Writing(settings["case"], settings["punctuation"])
        self._tokens: Any = None

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The encoder's last state (B, T, D) in float32: what the decoder listens to."""
        return states[-1].float()

    @property
    def tokens(self) -> Any:
        """The tokenizer."""
        if self._tokens is None:
            from tokenizers import Tokenizer

            self._tokens = Tokenizer.from_str(bytes(self.tokenizer.cpu().numpy()).decode("utf-8"))
        return self._tokens

    def loss(self, outputs: Tensor, targets: Sequence[NDArray[np.int64]], smoothing: float) -> Tensor:
        """Mean cross entropy per token of transcripts as code points, each after the true tokens before it."""
        prompt, end = list(self.settings["prompt"]), int(self.settings["end"])
        rows = [[*prompt, *self._encoded(transcripts.text_of(target)), end] for target in targets]
        longest = max(map(len, rows))
        given = torch.full((len(rows), longest - 1), end, device=outputs.device)
        wanted = torch.full((len(rows), longest - 1), IGNORED, device=outputs.device)
        for i, row in enumerate(rows):
            given[i, : len(row) - 1] = torch.tensor(row[:-1])
            wanted[i, len(prompt) - 1 : len(row) - 1] = torch.tensor(row[len(prompt) :])
        logits, _ = self._logits(given, outputs, None)
        return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, label_smoothing=smoothing)

    @torch.no_grad()
    def compact(self, outputs: Tensor) -> NDArray[np.float32]:
        """How sure each answer is (geometric mean of its tokens' probabilities), and its code points: (B, 1 + L), padded with -1."""
        answers = [self._search(outputs[i : i + 1]) for i in range(len(outputs))]
        return transcripts.packed([(transcripts.points(self._writing.normal(self.tokens.decode(ids))), sure) for ids, sure in answers])

    def _encoded(self, text: str) -> list[int]:
        most = int(self.decoder.config.max_target_positions) - len(self.settings["prompt"]) - 1
        found: list[int] = self.tokens.encode(f" {text}", add_special_tokens=False).ids[:most]
        return found

    def _logits(self, ids: Tensor, heard: Tensor, past: Any) -> tuple[Tensor, Any]:
        out = self.decoder(input_ids=ids, encoder_hidden_states=heard, past_key_values=past, use_cache=past is not None)
        return nn.functional.linear(out.last_hidden_state, self.decoder.embed_tokens.weight).float(), out.past_key_values

    def _search(self, heard: Tensor) -> tuple[list[int], float]:
        """The best answer of one utterance by beam search: beams end when one that has ended beats all that could still grow."""
        from transformers import DynamicCache, EncoderDecoderCache

        prompt, end, width = list(self.settings["prompt"]), int(self.settings["end"]), max(1, int(self.settings["beam"]))
        most = min(MOST_TOKENS, int(self.decoder.config.max_target_positions) - len(prompt))
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids = torch.tensor([prompt], device=heard.device)
        beams: list[tuple[list[int], float]] = [([], 0.0)]
        done: list[tuple[list[int], float]] = []
        for step in range(most):
            logits, past = self._logits(ids, heard.expand(len(beams), -1, -1), past)
            log_probabilities = torch.log_softmax(self._allowed(logits[:, -1], first=step == 0), 1)
            totals = log_probabilities + torch.tensor([[total] for _, total in beams], device=heard.device)
            best, where = totals.flatten().topk(min(2 * width, totals.numel()))
            grown = [(int(w) // totals.shape[1], int(w) % totals.shape[1], float(b)) for b, w in zip(best, where, strict=True)]
            done += [(beams[k][0], total / (step + 1)) for k, token, total in grown[:width] if token == end]
            kept = [(k, token, total) for k, token, total in grown if token != end and math.isfinite(total)][:width]
            if not kept or (len(done) >= width and max(s for _, s in done) >= kept[0][2] / (step + 1)):
                break
            beams = [([*beams[k][0], token], total) for k, token, total in kept]
            past.reorder_cache(torch.tensor([k for k, _, _ in kept], device=heard.device))
            ids = torch.tensor([[token] for _, token, _ in kept], device=heard.device)
        tokens, mean = max(done or [(b, total / max(1, len(b))) for b, total in beams], key=lambda pair: pair[1])
        return tokens, math.exp(mean)

    def _allowed(self, logits: Tensor, *, first: bool) -> Tensor:
        """No special tokens but the end, and nothing that the body's own settings forbid."""
        logits[:, int(self.settings["end"]) + 1 :] = -math.inf
        forbidden = [*self.settings["suppress"], *(self.settings["suppress_first"] if first else [])]
        logits[:, forbidden] = -math.inf
        return logits


def of(folder: Path, point: int, *, language: str, beam: int, writing: transcripts.Writing) -> Head | None:
    """The decoder in a Whisper folder as a head on the body's last state at ``point``; None where the folder holds no decoder.

    Raises:
        BackboneNotFound: It has a decoder but no tokenizer, or none that knows the language.
    """
    config = store.read_config(folder)
    if config.get("model_type") != "whisper":
        return None
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in store.read_tensors(path).items():
            prefix = next((p for p in PREFIXES if name.startswith(p)), None)
            if prefix is not None:
                tensors[name.removeprefix(prefix)] = tensor.float()
    if not tensors:
        return None
    tokenizer = _tokenizer(folder)
    settings = _settings(folder, config, tokenizer, language)
    head = Head(settings | {"points": [point], "beam": beam, "case": writing.case, "punctuation": writing.punctuation})
    written = np.frombuffer(tokenizer.to_str().encode(), np.uint8)
    head.load_state_dict({**{f"decoder.{k}": v for k, v in tensors.items()}, "tokenizer": torch.from_numpy(written.copy())})
    return head.eval()


def check(folder: Path, language: str) -> None:
    """Raise what ``of`` would of the tokenizer, before anything is computed; an encoder alone needs none.

    Raises:
        BackboneNotFound: There is a decoder but no tokenizer, or none that knows the language.
    """
    config = store.read_config(folder)
    if config.get("model_type") != "whisper":
        return
    if any(name.startswith(PREFIXES) for path in folder.glob("*.safetensors") for name in store.tensor_names(path)):
        _settings(folder, config, _tokenizer(folder), language)


def _settings(folder: Path, config: dict[str, Any], tokenizer: Any, language: str) -> dict[str, Any]:
    names = ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
    known = [tokenizer.token_to_id(name) for name in names]
    start = known[0] if known[0] is not None else config.get("decoder_start_token_id")
    many = any(tokenizer.token_to_id(f"<|{code}|>") is not None for code in ("en", "de", "zh", "es"))
    if start is None or (many and known[1] is None):
        raise BackboneNotFound(
            f"the tokenizer in {folder} has no token for the language {language!r}",
            "a code such as en or de",
            "give --set task.language=CODE",
        )
    end = tokenizer.token_to_id("<|endoftext|>")
    generation = store.read_object(folder / "generation_config.json")
    return {
        "kind": "whisper",
        "config": config,
        "prompt": [int(start), *(int(k) for k in itertools.islice(known, 1, None) if k is not None)],
        "end": int(config.get("eos_token_id", 0) if end is None else end),
        "suppress": [t for t in generation.get("suppress_tokens") or [] if t < config["vocab_size"]],
        "suppress_first": [t for t in generation.get("begin_suppress_tokens") or [] if t < config["vocab_size"]],
        "letters": len(tokenizer.to_str().encode()),
    }


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    store.quiet_transformers()
    try:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return vocabulary.plain(found.backend_tokenizer)
    except Exception as error:  # a damaged or missing tokenizer raises what it likes
        reason = str(error).strip().split("\n")[0][:200]
        given = f"no tokenizer can be loaded from {folder}: {reason}"
        raise BackboneNotFound(given, "Whisper's tokenizer files", "copy them there") from None
