"""A small real learner: a perceptron that learns the sign of a sum, in two phases, with dropout, so that every random number counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warmstart.core.report import Metric
from warmstart.engine.learner import Corpus, Group, Phase, Picture, Plan

ROWS = 24


def assert_resumes(make: Callable[[Path], Any], train: Callable[[Any, Path], object], folder: Path, *, calls: int) -> None:
    """A run that dies at this call of its learner's ``batch``, and is begun again, ends with the bits of one that nobody disturbed."""
    whole = make(folder / "a")
    train(whole, folder / "a")
    broken, seen = make(folder / "b"), 0
    batch = broken.batch

    def stop(phase: int, step: int) -> Any:
        nonlocal seen
        seen += 1
        if seen == calls:
            raise KeyboardInterrupt
        return batch(phase, step)

    broken.batch = stop
    with pytest.raises(KeyboardInterrupt):
        train(broken, folder / "b")
    resumed = make(folder / "b")
    train(resumed, folder / "b")
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


class Tiny:
    """Obeys ``core.protocols.Learner``. ``spoil`` may change the loss of a step, to see what the loop makes of it."""

    watches = True
    shards = True

    def __init__(
        self,
        *,
        steps: tuple[int, ...] = (30, 20),
        rank: int = 0,
        world: int = 1,
        dropout: float = 0.2,
        kinds: tuple[Any, Any] = ("muon", "adamw"),
        spoil: Callable[[Tensor, int], Tensor] = lambda loss, step: loss,
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module: nn.Module = nn.Sequential(nn.Linear(6, 16), nn.Dropout(dropout), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 1))
        self.settings: dict[str, Any] = {"steps": list(steps)}
        self.plan = Plan(parameters=129, steps=sum(steps), unit="rows", count=ROWS * sum(steps), seconds=1.0, memory_bytes=1)
        self.corpus = Corpus("numbers", "hash", {"rows": 1_000})
        self.rank, self.world, self.kinds, self.spoil = rank, world, kinds, spoil
        self.began: list[int] = []

    def phases(self) -> Sequence[Phase]:
        return [Phase(f"part {i}", steps) for i, steps in enumerate(self.settings["steps"])]

    def begin(self, phase: int) -> None:
        self.began.append(phase)
        if phase:
            with torch.no_grad():
                self.module[0].bias.add_(0.01 * torch.randn(16))  # type: ignore[union-attr, operator]

    def groups(self, phase: int) -> Sequence[Group]:
        matrix, rest = [self.module[0].weight], [p for name, p in self.module.named_parameters() if name != "0.weight"]  # type: ignore[union-attr]
        return [Group(tuple(matrix), 0.02, kind=self.kinds[0]), Group(tuple(rest), 0.01, kind=self.kinds[1])]

    def batch(self, phase: int, step: int) -> tuple[Tensor, Tensor, int]:
        generator = torch.Generator().manual_seed(1000 * phase + step)
        x = torch.randn(ROWS, 6, generator=generator)
        share = slice(self.rank * ROWS // self.world, (self.rank + 1) * ROWS // self.world)
        return x[share], (x.sum(1) > 0).float()[share], step

    def count(self, batch: tuple[Tensor, Tensor, int]) -> int:
        return len(batch[0])

    def learn(self, module: nn.Module, phase: int, batch: tuple[Tensor, Tensor, int]) -> dict[str, Tensor]:
        x, y, step = batch
        logits = module(x.to(next(module.parameters()).dtype)).float()[:, 0]
        loss = self.spoil(nn.functional.binary_cross_entropy_with_logits(logits, y), step)
        loss.backward()
        return {"loss": loss.detach(), "right": ((logits > 0) == (y > 0.5)).float().mean()}

    @torch.no_grad()
    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        x = torch.randn(200, 6, generator=torch.Generator().manual_seed(9))
        logits = module(x.to(next(module.parameters()).dtype)).float()[:, 0]
        return {"loss": float(nn.functional.binary_cross_entropy_with_logits(logits, (x.sum(1) > 0).float()))}

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        loss = self.validate(module, 0)["loss"]
        return {"validation_loss": Metric(loss, loss - 0.01, loss + 0.01, 200)}

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        return [Picture("weights", torch.rand(4, 4))]

    def samples(self, module: nn.Module) -> Sequence[str]:
        return ["a sample"]

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
