"""The training loop: resumed to the same bits, shortened where asked, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import TrainingFailed
from warmstart.engine import fit, master_weights
from warmstart.engine.clock import Pace

STEPS = 40
Batch = NDArray[np.int64]


class Interrupted(Exception):
    """What stops a run in the middle."""


class Task:
    """A small network with dropout and a parameter that the loss never reaches; ``stop`` names a step that fails."""

    def __init__(self, stop: int | None = None) -> None:
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.unused = nn.Parameter(torch.ones(3))
        self.x = torch.randn(64, 4)
        self.y = self.x[:, :1] * 2
        self.stop, self.calls = stop, 0

    def loss_of(self, batch: Batch) -> Tensor:
        if self.calls == self.stop:
            raise Interrupted
        self.calls += 1
        rows = torch.from_numpy(batch)
        return ((self.net(self.x[rows]) - self.y[rows]) ** 2).mean()

    def groups(self) -> list[master_weights.Group]:
        parameters = list(self.net.parameters())
        return [master_weights.Group((*parameters[:2], self.unused), 3e-2), master_weights.Group(tuple(parameters[2:]), 1e-2, 0.0)]

    def train(self, pace: Pace | None = None, checkpoint: Path | None = None, steps: int = STEPS) -> fit.Trained:
        stream = fit.order(np.full(64, 5), fit.Schedule(epochs=steps / 4, rows=16), (7, 0))
        assert len(stream) == steps
        return fit.train(
            self.loss_of,
            self.groups(),
            stream=stream,
            schedule=fit.Schedule(epochs=steps / 4, warmup=0.1),
            seed=3,
            pace=pace or Pace(math.inf),
            checkpoint=checkpoint,
        )

    def bits(self) -> list[bytes]:
        return [p.detach().numpy().tobytes() for p in (*self.net.parameters(), self.unused)]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)


def interrupt(checkpoint: Path, stop: int, pace: Pace | None = None) -> None:
    with pytest.raises(Interrupted):
        Task(stop).train(pace, checkpoint)


@pytest.mark.parametrize("stop", [1, *(int(n) for n in np.random.default_rng(0).integers(2, STEPS, 3)), STEPS - 1])
def test_a_resumed_run_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole, resumed, path = Task(), Task(), tmp_path / "c.safetensors"
    expected = whole.train()
    interrupt(path, stop)
    found = resumed.train(checkpoint=path)
    assert resumed.bits() == whole.bits()
    assert (resumed.calls, found.steps, found.loss) == (STEPS - stop, expected.steps, expected.loss)


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    whole, resumed, path = Task(), Task(), tmp_path / "c.safetensors"
    whole.train()
    for _ in range(3):
        interrupt(path, 7)
    resumed.train(checkpoint=path)
    assert resumed.calls == STEPS - 21
    assert resumed.bits() == whole.bits()


def test_a_plan_that_was_shortened_is_followed_to_the_same_bits(tmp_path: Path) -> None:
    first, again, resumed, path = Task(), Task(), Task(), tmp_path / "c.safetensors"
    pace = Pace(0.0)  # no time at all: lands at the first judgement
    assert first.train(pace).steps == Pace.WARM_UP + Pace.LANDING
    assert pace.replans == [(Pace.WARM_UP, Pace.WARM_UP + Pace.LANDING)]
    replans = [(9, 30), (21, 27)]
    assert again.train(Pace(0.0, list(replans), follow=True)).steps == 27
    interrupt(path, 15, Pace(0.0, list(replans), follow=True))
    resumed.train(Pace(0.0, list(replans), follow=True), path)
    assert resumed.bits() == again.bits()
    assert first.bits() != again.bits()


def test_what_was_shortened_before_a_kill_stays_so(tmp_path: Path) -> None:
    path, pace = tmp_path / "c.safetensors", Pace(math.inf, [(2, 31)])
    interrupt(path, 5, pace)
    after = Pace(math.inf)
    Task().train(after, path)
    assert after.replans == [(2, 31)]


def test_a_damaged_checkpoint_costs_only_its_steps(tmp_path: Path) -> None:
    whole, resumed, path = Task(), Task(), tmp_path / "c.safetensors"
    whole.train()
    interrupt(path, 20)
    path.write_bytes(path.read_bytes()[:-50])
    resumed.train(checkpoint=path)
    assert (resumed.calls, resumed.bits()) == (STEPS, whole.bits())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    task = Task()
    task.y[5] = math.nan
    with pytest.raises(TrainingFailed, match=r"the loss is nan at step \d+\. .*strategy\.lr"):
        task.train()


def test_training_leaves_the_random_state_alone() -> None:
    task = Task()
    before = torch.get_rng_state()
    task.train()
    assert torch.equal(torch.get_rng_state(), before)


def rates(replans: Sequence[tuple[int, int]], warmup: float = 0.1, steps: int = 100) -> list[float]:
    """Shares of the base learning rate over a run."""
    pace, state, found = Pace(math.inf, list(replans), follow=True), fit._State(0, steps, 0.0, []), []
    while state.step < (total := pace.total(state.step, state.total)):
        state.total = total
        state.factor = fit._factor(state, warmup)
        found.append(state.factor)
        state.step += 1
    return found


def test_the_rate_rises_and_falls_to_zero() -> None:
    found = rates([])
    assert len(found) == 100
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(np.diff(found[10:]), -1 / 91)  # linear
    assert found[-1] == pytest.approx(1 / 91)


def test_the_rate_stays_smooth_where_a_run_is_shortened() -> None:
    found = rates([(40, 60), (50, 55)])
    assert len(found) == 55
    assert max(abs(np.diff(found[10:]))) < 0.12  # never a jump: from 0.4 to 0 within the last five steps
    np.testing.assert_allclose(np.diff(found[40:50]), found[41] - found[40])
    assert found[40] - found[39] < 0
    assert found[-1] < 0.12


def test_the_order_is_that_of_the_seed_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 100)
    schedule = fit.Schedule(epochs=2.5, tokens=256, rows=16)
    one, same, other = (fit.order(lengths, schedule, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert [b.tolist() for b in one] == [b.tolist() for b in same]
    assert [b.tolist() for b in one] != [b.tolist() for b in other]
    counts = np.bincount(np.concatenate(one), minlength=100)
    assert counts.min() >= 2
    assert counts.max() == 3


@pytest.mark.parametrize("stop", [None, 5, 30])
def test_a_lengthened_run_is_followed_to_the_same_bits(stop: int | None, tmp_path: Path) -> None:
    schedule = fit.Schedule(epochs=5, most=10, rows=16, warmup=0.1)
    stream = fit.order(np.full(64, 5), schedule, (7, 0))
    assert len(stream) == 40

    def train(task: Task, pace: Pace, checkpoint: Path | None = None) -> int:
        return fit.train(task.loss_of, task.groups(), stream=stream, schedule=schedule, seed=3, pace=pace, checkpoint=checkpoint).steps

    free, pace, path = Task(), Pace(60.0, may_grow=True), tmp_path / "c.safetensors"
    if stop is not None:
        with pytest.raises(Interrupted):
            train(Task(stop), pace, path)
        pace = Pace(60.0, may_grow=True)
    assert train(free, pace, path) == 40
    assert pace.replans
    assert pace.replans[0][1] == 40
    followed = Task()
    assert train(followed, Pace(0.0, pace.replans, follow=True)) == 40
    assert followed.bits() == free.bits()
    assert train(Task(), Pace(60.0)) == 20  # as planned
