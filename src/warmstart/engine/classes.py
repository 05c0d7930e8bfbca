"""Supervised pre-training: a body learns the labels at hand, and is kept without its head. Shapes: B rows of a step, C classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.core.errors import DataError
from warmstart.core.report import Metric
from warmstart.engine import augment, statistics, streams
from warmstart.engine.learner import Group, Phase, Picture
from warmstart.engine.seeds import generator, seeded
from warmstart.engine.streams import Stream

Batch = tuple[dict[str, Tensor], Tensor]


class Classifier(nn.Module):
    """A body, the mean over its last state, and a linear layer."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, classes)

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, D) in float32."""
        return streams.pooled(self.body, batch)

    def logits(self, states: Tensor) -> Tensor:
        """(B, C) in float32."""
        return functional.linear(states, self.head.weight.float(), self.head.bias.float())

    def forward(self, batch: Mapping[str, Tensor], targets: Tensor, smoothing: float) -> dict[str, Tensor]:
        """Summed cross entropy, and how many are right; ``targets (B, C)`` are probabilities."""
        logits = self.logits(self.embed(batch))
        loss = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        return {"loss": loss, "right": (logits.argmax(1) == targets.argmax(1)).sum()}


class Classes:
    """The learner. Of the stream's settings it reads ``batch``, ``steps``, ``smoothing``, ``mixup`` and what the optimiser needs."""

    watches = True
    shards = False

    def __init__(self, stream: Stream) -> None:
        if stream.labels is None or stream.held_labels is None:
            raise DataError(f"{stream.corpus.source} has no labels", "a label for every row", "name the column: --column label=NAME")
        if len(stream.names) < 2:
            raise DataError(f"all labels of {stream.corpus.source} are {stream.names[0]!r}", "at least two labels", "give others too")
        self.stream, self.settings, self.corpus = stream, dict(stream.settings), stream.corpus
        self.labels, self.held_labels = stream.labels, stream.held_labels
        body = stream.body()
        with seeded(stream.setting.seed + 1):
            module = Classifier(body, streams.width(body, stream), len(stream.names))
        self.module: nn.Module = module.to(stream.setting.device)
        self.plan = streams.plan(self.module, stream, views=1)

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [streams.one_cycle("supervised", self.settings)]

    def begin(self, phase: int) -> None:
        """Nothing."""

    def groups(self, phase: int) -> Sequence[Group]:
        """Everything."""
        return streams.groups(self.module, self.settings)

    def batch(self, phase: int, step: int) -> Batch:
        """This process's views and their targets (b, C)."""
        stream, setting = self.stream, self.stream.setting
        rows = stream.rows(step)
        targets = functional.one_hot(self.labels[rows], len(stream.names)).float()
        mine = slice(setting.rank, None, setting.world)
        batch, wanted = stream.views(step, 0), targets[mine]
        if self.settings["mixup"]:
            share = augment.shares(len(rows), self.settings["mixup"], generator=generator(setting.seed, step, 2))[mine]
            partners = stream.views(step, 0, shift=1)
            mixed = {name: augment.mix(value, partners[name], share) for name, value in batch.items()}
            batch, wanted = mixed, augment.mix(wanted, targets.roll(-1, 0)[mine], share)
        return batch, wanted.to(setting.device)

    def count(self, batch: Batch) -> int:
        """Rows."""
        return len(batch[1])

    def learn(self, module: nn.Module, phase: int, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, as a mean over the whole batch."""
        share = self.stream.setting.world / self.settings["batch"]
        out = module(*batch, self.settings["smoothing"])
        loss = out["loss"] * share
        loss.backward()
        return {"loss": loss.detach(), "accuracy": out["right"] * share}

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Loss and accuracy of the head, and accuracy of a linear probe, on some held-out rows."""
        losses, right, states = self._held(module, self.stream.looked_at)
        return {
            "loss": float(losses.mean()),
            "accuracy": float(right.mean()),
            "probe_accuracy": float(self._probed(module, states, 1).mean()),
        }

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """The same on all held-out rows, with a probe on more rows."""
        losses, right, states = self._held(module.eval(), self.stream.n_held)
        return {
            "validation_loss": statistics.mean_metric(losses, bounds=(0.0, math.inf)),
            "validation_accuracy": statistics.mean_metric(right),
            "probe_accuracy": statistics.mean_metric(self._probed(module, states, 4)),
        }

    @torch.no_grad()
    def _held(self, module: nn.Module, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (M,), right answers (M,), states (M, D)."""
        n = min(n, self.stream.n_held)
        states = torch.cat([module.embed(self.stream.held(i, min(n, i + 256))) for i in range(0, n, 256)])  # type: ignore[operator]
        logits: Tensor = module.logits(states).cpu()  # type: ignore[operator]
        labels = self.held_labels[:n]
        return functional.cross_entropy(logits, labels, reduction="none").double(), (logits.argmax(1) == labels).double(), states.cpu()

    def _probed(self, module: nn.Module, states: Tensor, times: int) -> Tensor:
        """Which held-out rows (M,) a probe names rightly."""
        return streams.probed(module, self.stream, (self.labels, self.held_labels), states, times=times)

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        """What the network sees."""
        return self.stream.pictures()

    def samples(self, module: nn.Module) -> Sequence[str]:
        """None."""
        return ()

    def save(self, folder: Path) -> None:
        """The body without its head."""
        self.stream.save(self.module.body, folder)  # type: ignore[arg-type]
