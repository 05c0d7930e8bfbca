"""Contrastive pre-training: two views of one row lie close, those of others far. Shapes: B rows of a step, b of this process, D features.

Images: SimCLR (Chen et al. 2020), random views and a projection. Texts: unsupervised SimCSE (Gao et al. 2021), the same text twice
through a body with dropout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from warmstart.core.errors import BadOption
from warmstart.core.report import Metric
from warmstart.engine import contrastive, statistics, streams
from warmstart.engine.learner import Group, Phase, Picture
from warmstart.engine.seeds import seeded
from warmstart.engine.streams import Stream

UNIFORM = 1024
"""Rows between which uniformity is measured at the end."""


class Contrast(nn.Module):
    """A body, the mean over its last state, and where ``features`` is not 0 a projection to so many."""

    def __init__(self, body: nn.Module, width: int, features: int) -> None:
        super().__init__()
        self.body = body
        self.projection: nn.Module = contrastive.Projection(width, features) if features else nn.Identity()

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, D) in float32."""
        return streams.pooled(self.body, batch)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What is contrasted: (B, features or D) in float32."""
        states = self.embed(batch)
        kind = next((p.dtype for p in self.projection.parameters()), states.dtype)
        found: Tensor = self.projection(states.to(kind))
        return found.float()


class Views:
    """The learner. Of the stream's settings it reads ``batch``, ``steps``, ``temperature``, ``features`` and what the optimiser needs."""

    watches = True
    shards = False

    def __init__(self, stream: Stream) -> None:
        setting, batch = stream.setting, stream.settings["batch"]
        if batch < 2 or batch % setting.world:
            raise BadOption(
                f"a batch of {batch} {stream.unit} over {setting.world} processes",
                "as many for each, and two at least in all",
                "set objective.batch, or give more data",
            )
        self.stream, self.settings, self.corpus = stream, dict(stream.settings), stream.corpus
        self.loss = contrastive.nt_xent if self.settings["features"] else contrastive.info_nce
        body = stream.body()
        with seeded(setting.seed + 1):
            module = Contrast(body, streams.width(body, stream), self.settings["features"])
        self.module: nn.Module = module.to(setting.device)
        self.plan = streams.plan(self.module, stream, views=2)

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [streams.one_cycle("contrastive", self.settings)]

    def begin(self, phase: int) -> None:
        """Nothing."""

    def groups(self, phase: int) -> Sequence[Group]:
        """Everything."""
        return streams.groups(self.module, self.settings)

    def batch(self, phase: int, step: int) -> dict[str, Tensor]:
        """Two views of this process's rows, 2 b in all: first all first ones, then all second ones."""
        first, second = self.stream.views(step, 0), self.stream.views(step, 1)
        return {name: torch.cat([value, second[name]]) for name, value in first.items()}

    def count(self, batch: dict[str, Tensor]) -> int:
        """Rows."""
        return len(next(iter(batch.values()))) // 2

    def learn(self, module: nn.Module, phase: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss over the views of all processes."""
        setting = self.stream.setting
        halves = module(batch).chunk(2)
        first, second = (contrastive.gathered(half, rank=setting.rank, world=setting.world) for half in halves)
        loss = self.loss(first, second, temperature=self.settings["temperature"])
        (loss * setting.world).backward()  # type: ignore[no-untyped-call]  # the loop takes the mean over processes of gradients that belong to different rows
        return {"loss": loss.detach(), "alignment": contrastive.alignment(first.detach(), second.detach()).mean()}

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Loss, alignment and uniformity on held-out rows, and a linear probe where there are labels."""
        loss, align, states = self._held(module, self.stream.looked_at)
        found = {"loss": float(loss.mean()), "alignment": float(align.mean()), "uniformity": float(contrastive.uniformity(states))}
        right = self._probed(module, states, 1)
        return found if right is None else {**found, "probe_accuracy": float(right.mean())}

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """The same on all held-out rows."""
        with seeded(self.stream.setting.seed):
            loss, align, states = self._held(module.eval(), self.stream.n_held)
        found = {
            "validation_loss": statistics.mean_metric(loss, bounds=(0.0, math.inf)),
            "alignment": statistics.mean_metric(align, bounds=(0.0, 4.0)),
            "uniformity": contrastive.uniformity_metric(states[:UNIFORM], seed=self.stream.setting.seed),
        }
        right = self._probed(module, states, 4)
        return found if right is None else {**found, "probe_accuracy": statistics.mean_metric(right)}

    @torch.no_grad()
    def _held(self, module: nn.Module, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (M,), alignment (M,) and states (M, D) of the first held-out rows; what does not fill a batch is left out."""
        stream, n = self.stream, min(n, self.stream.n_held)
        size = min(self.settings["batch"], n)
        losses, aligned, states = [], [], []
        for start in range(0, n - size + 1, size):
            module.train(self.settings["features"] == 0)  # it is dropout that makes two views of a text
            views = [stream.held_views(start, start + size, which) for which in (0, 1)]
            first, second = (module.embed(view) for view in views)  # type: ignore[operator]
            contrasted = [module(view) for view in views] if self.settings["features"] else [first, second]
            module.eval()
            each = self.loss(*contrasted, temperature=self.settings["temperature"], reduction="none")
            losses.append(each.view(-1, size).mean(0))
            aligned.append(contrastive.alignment(first, second))
            states.append(module.embed(stream.held(start, start + size)))  # type: ignore[operator]
        return torch.cat(losses).double().cpu(), torch.cat(aligned).double().cpu(), torch.cat(states).cpu()

    def _probed(self, module: nn.Module, states: Tensor, times: int) -> Tensor | None:
        """Which held-out rows (M,) a probe names rightly; None without labels."""
        labels, held = self.stream.labels, self.stream.held_labels
        if labels is None or held is None or len(self.stream.names) < 2:
            return None
        return streams.probed(module, self.stream, (labels, held), states, times=times)

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        """Views that have to be told from others."""
        return self.stream.pictures()

    def samples(self, module: nn.Module) -> Sequence[str]:
        """None."""
        return ()

    def save(self, folder: Path) -> None:
        """The body without its projection."""
        self.stream.save(self.module.body, folder)  # type: ignore[arg-type]
