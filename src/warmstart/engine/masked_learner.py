"""Masked language modelling with a second task as the training loop drives it: ``L = L_MLM + L_second`` (Devlin et al. 2019)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.report import Metric
from warmstart.engine import masked_batches, statistics
from warmstart.engine.learner import Corpus, Group, Phase, Picture, Plan
from warmstart.engine.masked_batches import Batch, How
from warmstart.engine.masked_model import MaskedModel
from warmstart.engine.sentence_pairs import NO_PAIR, Rows, Stream, pack
from warmstart.engine.tokens import TokenFile

FEW, MANY = 2_048, 131_072
"""Held-out tokens are at least and at most so many where something is measured on them."""

SHOWN = 3
BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Measured:
    """What held-out rows gave: losses in nats and whether it was right, of M hidden words and P pairs; ``row (M,)`` tells whose word."""

    words: NDArray[np.float64]
    words_right: NDArray[np.bool_]
    row: NDArray[np.int64]
    second: NDArray[np.float64]
    second_right: NDArray[np.bool_]


class MaskedLearner:
    """Batches, losses and measures of one body on one corpus."""

    watches = True
    shards = True

    def __init__(
        self,
        model: MaskedModel,
        *,
        train: TokenFile,
        held: TokenFile,
        how: How,
        settings: dict[str, Any],
        corpus: Corpus,
        save_tokenizer: Callable[[Path], None],
        decode: Callable[[Sequence[int]], str],
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.module: nn.Module = model
        self.settings, self.corpus, self.how, self.held = settings, corpus, how, held
        self.plan = Plan(sum(p.numel() for p in model.parameters()), 0, "tokens", 0, 0.0, 0)
        self._model, self._train, self._seed, self._rank, self._world = model, train, seed, rank, world
        self._save_tokenizer, self._decode = save_tokenizer, decode
        self._stream = Stream(train, context=settings["context"], second=settings["second"], tokens=settings["batch"], seed=seed)
        self.steps_per_epoch = self._stream.steps_per_epoch

    @property
    def config(self) -> Any:
        """The body's configuration."""
        return self._model.config

    def with_batch(self, tokens: int) -> MaskedLearner:
        """The same learner, on the same module, with so many tokens a step."""
        twin = copy.copy(self)
        twin.settings = {**self.settings, "batch": tokens}
        twin._stream = Stream(self._train, context=self.settings["context"], second=self.settings["second"], tokens=tokens, seed=self._seed)
        twin.steps_per_epoch = twin._stream.steps_per_epoch
        return twin

    def phases(self) -> Sequence[Phase]:
        """One: a short rise of the learning rate, then a straight line to zero."""
        s = self.settings
        return [Phase("bert", s["steps"], warmup=s["warmup"], cooldown=1 - s["warmup"], most=s.get("most_steps", 0))]

    def begin(self, phase: int) -> None:
        """Nothing: the weights were drawn when the learner was made."""

    def groups(self, phase: int) -> Sequence[Group]:
        """Matrices decay, biases, gains and position embeddings do not."""
        moved = self._model.moved(second=self.how.second)
        lr, decay = self.settings["lr"], self.settings["weight_decay"]
        matrices = tuple(p for _, p in moved if p.ndim > 1)
        others = tuple(p for _, p in moved if p.ndim < 2)
        return [Group(matrices, lr, decay, betas=BETAS), Group(others, lr, 0.0, betas=BETAS)]

    def batch(self, phase: int, step: int) -> Batch:
        """New rows, masked anew."""
        random = np.random.default_rng((self._seed, 1, step))
        return masked_batches.make(self._train, self._stream.rows(step), self.how, random=random, rank=self._rank, world=self._world)

    def count(self, batch: Batch) -> int:
        """Tokens, special ones included, padding not."""
        return batch.tokens

    def learn(self, module: nn.Module, phase: int, batch: Batch) -> dict[str, Tensor]:
        """Losses over the number of words and pairs of all processes, so that the mean of their gradients is that of the whole."""
        device = batch.parts[0]["input_ids"].device
        words, second = torch.zeros((), device=device), torch.zeros((), device=device)
        for part in batch.parts:
            found = module(**part)
            loss = found["words"].sum() * (self._world / max(1, batch.masked))
            words += loss.detach()
            if self.how.second:
                pairs = found["second"].sum() * (self._world / max(1, batch.pairs))
                second += pairs.detach()
                loss = loss + pairs
            loss.backward()
        losses = {"loss": words + second, "mlm": words}
        return {**losses, self.settings["second"]: second} if self.how.second else losses

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Losses and accuracies on held-out rows, always the same ones with the same words hidden; bounded to 0.2 % of the training."""
        found = self._measure(module, self._bounded(0.002))
        measures = {"mlm": float(found.words.mean()), "mlm_accuracy": float(found.words_right.mean())}
        if len(found.second):
            second = self.settings["second"]
            measures |= {second: float(found.second.mean()), f"{second}_accuracy": float(found.second_right.mean())}
        return {"loss": measures["mlm"] + measures.get(self.settings["second"], 0.0), **measures}

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """Held-out losses, perplexity and accuracies; words of one row are not independent, so rows are what is counted."""
        found = self._measure(module, self._bounded(0.02))
        worst, rows = 3 * math.log(self.how.vocabulary.size), len(np.unique(found.row))
        mlm = _metric(found.words, found.row, (0.0, worst))
        accuracy = _metric(found.words_right, found.row, (0.0, 1.0))
        measures = {
            "mlm_loss": mlm,
            "mlm_accuracy": accuracy,
            "perplexity": Metric(math.exp(mlm.value), math.exp(mlm.low), math.exp(mlm.high), rows),
        }
        total = mlm
        if len(found.second):
            second = self.settings["second"]
            loss = _metric(found.second, None, (0.0, 20.0))
            measures |= {f"{second}_loss": loss, f"{second}_accuracy": _metric(found.second_right, None, (0.0, 1.0))}
            half = math.hypot((mlm.high - mlm.low) / 2, (loss.high - loss.low) / 2)  # two means of different rows, added
            value = mlm.value + loss.value
            total = Metric(value, max(0.0, value - half), value + half, rows)
        return {"validation_loss": total, **measures}

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        """None: there is nothing to draw."""
        return ()

    @torch.inference_mode()
    def samples(self, module: nn.Module) -> Sequence[str]:
        """Held-out rows with their hidden words as ``[guess/truth]``, or ``[word]`` where the guess is right."""
        module.eval()
        rows, random = self._held_rows(FEW)
        rows = rows.take(np.arange(min(SHOWN, len(rows.a))))
        found = []
        for part in masked_batches.make(self.held, rows, self.how, random=random).parts:
            part.pop("follows", None)
            positions, targets = part.pop("positions"), part.pop("targets")
            if not self._model.typed:
                part.pop("token_type_ids")
            states = module.body(**part)[0].flatten(0, 1)[positions]  # type: ignore[operator, union-attr]
            guesses = module.words(states).argmax(-1)  # type: ignore[operator]
            words = [[self._decode([i]) for i in row] for row in part["input_ids"].tolist()]
            width = part["input_ids"].shape[1]
            for at, guess, truth in zip(positions.tolist(), guesses.tolist(), targets.tolist(), strict=True):
                shown = [self._decode([guess]), self._decode([truth])]
                words[at // width][at % width] = f"[{shown[0]}]" if guess == truth else f"[{shown[0]}/{shown[1]}]"
            found += [" ".join(w for w in row if w != self._decode([self.how.vocabulary.pad])) for row in words]
        return found

    def save(self, folder: Path) -> None:
        """The body that ``AutoModel`` opens, its heads, from which ``--from`` goes on, and its tokenizer."""
        self._model.save(folder)
        self._save_tokenizer(folder)

    def _bounded(self, share: float) -> int:
        return int(min(MANY, max(FEW, share * self.settings["steps"] * self.settings["batch"])))

    def _held_rows(self, tokens: int) -> tuple[Rows, np.random.Generator]:
        """The first held-out documents, in a seeded order, that have so many tokens; and the generator that hides their words."""
        random = np.random.default_rng((self._seed, 2))
        order = random.permutation(len(self.held.documents) - 1)
        ends = np.cumsum(np.diff(self.held.sentences[self.held.documents])[order])
        chosen = order[: int(np.searchsorted(ends, tokens)) + 1]
        rows = pack(self.held, chosen, context=self.settings["context"], second=self.settings["second"], random=random)
        kept = int(np.searchsorted(np.cumsum(rows.length), tokens)) + 1  # one document may be a whole book
        return rows.take(np.arange(min(kept, len(rows.a)))), random

    @torch.inference_mode()
    def _measure(self, module: nn.Module, tokens: int) -> Measured:
        module.eval()
        rows, random = self._held_rows(tokens)
        batch = masked_batches.make(self.held, rows, self.how, random=random)
        words, right, owner, second, second_right = [], [], [], [], []
        before = 0
        for part in batch.parts:
            found = module(**part)
            words.append(found["words"].double())
            right.append(found["words_right"])
            owner.append(part["positions"] // part["input_ids"].shape[1] + before)
            before += len(part["input_ids"])
            if self.how.second:
                there = part["follows"] != NO_PAIR
                second.append(found["second"].double()[there])
                second_right.append(found["second_right"][there])
        joined: list[NDArray[Any]] = [_joined(found) for found in (words, right, owner, second, second_right)]
        return Measured(*joined)


def _joined(parts: list[Tensor]) -> NDArray[Any]:
    return np.asarray(torch.cat(parts).cpu().numpy()) if parts else np.zeros(0)


def _metric(values: NDArray[Any], clusters: NDArray[np.int64] | None, bounds: tuple[float, float]) -> Metric:
    low, high = statistics.mean_interval(values, clusters, bounds=bounds)
    return Metric(float(values.mean()), low, high, len(values) if clusters is None else len(np.unique(clusters)))
