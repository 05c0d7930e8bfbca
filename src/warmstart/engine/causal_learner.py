"""Learning to predict the next token: the steps that the training loop asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from warmstart.core.report import Metric
from warmstart.engine import causal, generation, statistics, store, tokens, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.learner import Corpus, Group, Phase, Picture, Plan, Setting
from warmstart.engine.windows import Windows

CURVE_TOKENS, VALIDATION_TOKENS = 8_192, 8_192
"""Held-out tokens of a point of the curve, and at once."""
LEAST_FINAL, MOST_FINAL, FINAL_SHARE = 131_072, 2_000_000, 0.1
"""Held-out tokens of the measure at the end: so many, as a share of the tokens learned from, so that it stays a small part of the run."""
SAMPLES, SAMPLE_TOKENS = 3, 120


@dataclass(frozen=True)
class Data:
    """A corpus, its tokenizer, the token that ends a text, and the token files ``train`` and ``held``."""

    texts: Texts
    tokenizer: Any
    end: int | None
    files: dict[str, tokens.TokenFile]


class CausalLearner:
    """Drives a ``Causal`` module; see ``core/protocols.py``, ``Learner``."""

    watches = True
    shards = True

    def __init__(self, model: nn.Module, settings: dict[str, Any], setting: Setting, data: Data) -> None:
        self.module = causal.Causal(model)
        self.settings, self.setting, self.data = settings, setting, data
        self.train, self.held = (
            Windows(data.files[part], context=settings["context"], end=data.end, seed=setting.seed) for part in ("train", "held")
        )
        survey = data.texts.survey()
        counts = {"documents": survey.documents, "characters": survey.characters, "tokens": self.train.length}
        notes = list(data.texts.notes)
        if "context_wanted" in settings:
            short = "training text" if self.train.length <= self.held.length else "held-out text"
            notes.append(f"the context is {settings['context']:,} tokens, not {settings['context_wanted']:,}: the {short} has no more")
        if unknown := sum(file.unknown for file in data.files.values()):
            notes.append(f"{unknown:,} tokens stand for something that the vocabulary lacks")
        self.corpus = Corpus(data.texts.name, survey.hash, counts | {"held-out tokens": self.held.length}, survey.left_out, tuple(notes))
        self.plan = Plan(sum(p.numel() for p in model.parameters()), 0, "tokens", 0, 0.0, 0)

    def phases(self) -> Sequence[Phase]:
        s = self.settings
        falling = {"cooldown": s["cooldown"], "decay": s["decay"], "floor": s["floor"]}
        return [Phase("gpt", s["steps"], warmup=s["warmup"], most=s.get("most_steps", 0), **falling)]

    def begin(self, phase: int) -> None:
        """Nothing to start from."""

    def groups(self, phase: int) -> Sequence[Group]:
        s = self.settings
        hidden, embedded, rest = causal.matrices(self.module.model)
        how: dict[str, Any] = {"lr": s["lr"], "betas": (0.9, s["beta2"])}
        if s["optimizer"] == "muon":
            first = Group(tuple(hidden), lr=s["muon_lr"], weight_decay=s["weight_decay"], kind="muon")
        else:
            first = Group(tuple(hidden), weight_decay=s["weight_decay"], **how)
        return [first, Group(tuple(embedded), weight_decay=s["weight_decay"], **how), Group(tuple(rest), **how)]

    def batch(self, phase: int, step: int) -> Tensor:
        size, setting = self.settings["batch"], self.setting
        return self.train.batch(step * size, size, rank=setting.rank, world=setting.world).to(setting.device)

    def count(self, batch: Tensor) -> int:
        return batch.shape[0] * (batch.shape[1] - 1)

    def learn(self, module: nn.Module, phase: int, batch: Tensor) -> dict[str, Tensor]:
        everything = self.settings["batch"] * self.settings["context"]
        loss = module(batch)["loss"] * (self.setting.world / everything)
        loss.backward()
        return {"loss": loss.detach()}

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        return {"loss": float(np.mean(self._losses(module, self.held.rows(max(1, CURVE_TOKENS // self.settings["context"])))))}

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """Loss by token, in nats, and in bits by character: these two compare across vocabularies."""
        s = self.settings
        wanted = min(MOST_FINAL, max(LEAST_FINAL, int(FINAL_SHARE * s["steps"] * s["batch"] * s["context"])))
        rows = self.held.rows(max(1, wanted // s["context"]))
        losses = self._losses(module, rows)
        low, high = statistics.mean_interval(losses, bounds=(0.0, math.inf))
        value, file = float(losses.mean()), self.data.files["held"]
        scale = len(file.tokens) / max(1, file.characters) / math.log(2)
        return {
            "validation_loss": Metric(value, low, high, len(losses)),
            "bits_per_character": Metric(value * scale, low * scale, high * scale, len(losses)),
        }

    @torch.no_grad()
    def _losses(self, module: nn.Module, rows: Tensor) -> Any:
        """(B,) mean loss of each window."""
        context = self.settings["context"]
        at_once = max(1, VALIDATION_TOKENS // context)
        parts = [rows[start : start + at_once].to(self.setting.device) for start in range(0, len(rows), at_once)]
        return torch.cat([module(part)["rows"] / context for part in parts]).double().cpu().numpy()

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        return []

    def samples(self, module: nn.Module) -> Sequence[str]:
        """Short texts that go on from the beginning of held-out windows."""
        writer = generation.Writer(self.module.model, self.data.tokenizer, context=self.settings["context"], end=self.data.end)
        starts = [row[: self.settings["context"] // 4].tolist() for row in self.held.rows(SAMPLES)]
        prompts = [self.data.tokenizer.decode(start, skip_special_tokens=True) for start in starts]
        drawn = generation.Sampling(max_tokens=SAMPLE_TOKENS, seed=self.setting.seed)
        return [f"{prompt}|{writer.write(prompt, drawn).text}" for prompt in prompts]

    def save(self, folder: Path) -> None:
        """A transformers model with its tokenizer."""
        store.save_transformers(self.module.model, folder)
        if self.setting.start is not None:
            vocabulary.load(self.setting.start).save_pretrained(str(folder))
        else:
            vocabulary.save(self.data.tokenizer, folder, max_length=self.settings["context"])
