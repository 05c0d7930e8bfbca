"""The one loop of pre-training: phases, several optimisers, float32 master weights, exact resume, and a way back from a bad step.

Batches and random numbers follow from seed, phase and step, so a checkpoint needs only parameters, optimiser state and a few numbers.
When a loss is not finite, or leaps, or a validation fails on what the body has become, nothing of that is kept: the run goes back to its
last checkpoint with half the learning rate.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from warmstart.core.errors import BadOption, TrainingFailed
from warmstart.core.protocols import Learner
from warmstart.engine import clock, optimizers, sharded
from warmstart.engine.checkpoints import Checkpoint, Checkpoints
from warmstart.engine.clock import Pace
from warmstart.engine.history import History, sparkline
from warmstart.engine.learner import Group, Phase
from warmstart.engine.parallel import Crew
from warmstart.engine.sharded import Sharded
from warmstart.engine.working import Working

GROWS = 0.5
"""Share of its steps after which a phase grows no more."""
VALIDATIONS, ROWS, CHECKPOINTS = 20, 400, 40
"""How often a phase is validated (at most), adds a row to its curves, and can be resumed from."""
VALIDATION_SHARE = 0.1
"""Of the time of training, for validations on the way: in short runs they would take more than the steps. No bit depends on them."""

MOST_RETREATS = 6
MEMORY, LEAP, LEAP_SHARE, SETTLED, PATIENCE = 0.98, 6.0, 0.3, 100, 3
"""A leap: ``PATIENCE`` times in a row the loss lies more than ``LEAP`` mean deviations, and more than ``LEAP_SHARE`` of it, above its
running mean, once ``SETTLED`` steps were seen. A single odd batch is none: its gradient was clipped."""


@dataclass(frozen=True)
class How:
    """How a learner is driven: ``folder`` takes checkpoints and curves; ``seconds`` is the time for all phases (None: no limit).

    ``replans`` are the shortenings that an earlier run of the same recipe recorded, to be followed without looking at the clock.
    ``shards``: several processes hold a part of the parameters each, in place of all of them.
    """

    folder: Path
    seed: int
    device: torch.device
    precision: torch.dtype
    seconds: float | None = None
    replans: dict[str, list[tuple[int, int]]] | None = None
    keep: int = 2
    crew: Crew = field(default_factory=Crew)
    shards: bool = False
    progress: str | None = None


@dataclass
class State:
    """What a resumed run needs beside tensors. ``step`` counts within the phase, ``done`` over the phases before; ``seconds`` of training;
    ``scale`` shrinks the learning rate after a retreat; ``mean`` and ``spread`` follow the loss, ``alarms`` counts leaps in a row."""

    phase: int = 0
    step: int = 0
    done: int = 0
    begun: bool = False
    total: int = 0
    seconds: float = 0.0
    count: int = 0
    scale: float = 1.0
    retreats: int = 0
    mean: float = math.nan
    spread: float = 0.0
    alarms: int = 0
    events: list[str] = field(default_factory=list)
    replans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def leaps(self, loss: float, step: int) -> bool:
        """Follow the loss; True when it has leapt."""
        if not step:
            self.mean, self.spread = loss, 0.0
        above = loss - self.mean
        leapt = step > SETTLED and above > LEAP * self.spread and above > LEAP_SHARE * abs(self.mean)
        self.alarms = self.alarms + 1 if leapt else 0
        if not leapt:
            self.mean += (1 - MEMORY) * above
            self.spread += (1 - MEMORY) * (abs(above) - self.spread)
        return self.alarms >= PATIENCE


@dataclass(frozen=True)
class Outcome:
    """What a run did: ``steps``, and ``count`` items seen, in ``seconds`` of training; its curves, and what went wrong on the way."""

    steps: int
    count: int
    seconds: float
    history: History
    events: list[str]
    replans: dict[str, list[tuple[int, int]]]


def run(learner: Learner, how: How) -> Outcome:
    """Train ``learner.module`` in place through all its phases, from the last checkpoint in the folder where there is one.

    Raises:
        TrainingFailed: The loss stayed bad after several retreats; the last good checkpoint stays.
        DiskFull: No space for a checkpoint; the last good one stays, and the same call resumes from it.
    """
    with torch.random.fork_rng(devices=[how.device] if how.device.type == "cuda" else []):
        return _Run(learner, how).go()


class _Run:
    """One call of ``run``."""

    def __init__(self, learner: Learner, how: How) -> None:
        self.learner, self.how, self.module = learner, how, learner.module
        self.phases = list(learner.phases())
        self.checkpoints = Checkpoints(how.folder / "checkpoints", how.keep)
        self.history = History(how.folder / "history.jsonl", how.folder / "tensorboard" if how.crew.leads else None)
        self.state = State()
        self.optimizers: list[torch.optim.Optimizer] = []
        self.recent: list[dict[str, float]] = []
        self.told = (0, 0.0)
        self.validating = 0.0
        self.working: Working | Sharded = Working(self.module, how.precision) if not self.sharded else self._sharded()
        if how.device.type == "cuda":
            self.working.copy.compile()  # type: ignore[no-untyped-call]

    @property
    def sharded(self) -> bool:
        return self.how.shards and self.how.crew.world > 1

    def _sharded(self) -> Sharded:
        """Raises BadOption where the learner cannot be driven so."""
        if not self.learner.shards:
            raise BadOption("sharding of an objective that has no large models", "gpt or bert", "leave out --parallel fsdp")
        return Sharded(self.module, self.how.precision, world=self.how.crew.world, device=self.how.device)

    def go(self) -> Outcome:
        found = self._newest()
        if found is not None:
            self._restore(found)
        self._cut_history()
        while self.state.phase < len(self.phases):
            self._phase(self.phases[self.state.phase])
        self.history.close()
        state = self.state
        return Outcome(state.done, state.count, state.seconds, self.history, state.events, state.replans)

    def _phase(self, phase: Phase) -> None:
        state = self.state
        if not state.begun:
            self._seed(_mixed(self.how.seed, state.phase, -1))
            self.learner.begin(state.phase)
            state.begun, state.total = True, phase.steps
            self._prepare()
            self._save()
        pace = self._pace(phase)
        pace.start(state.step)
        with tqdm(
            total=state.total, initial=state.step, desc=phase.name, unit="step", disable=None if self.how.progress else True, leave=False
        ) as bar:
            while True:
                total = int(self.how.crew.agree(pace.total(state.step, state.total, self._most(phase))))
                if state.step >= total and self._validate(phase, bar):
                    break
                if state.step < total:
                    state.total = bar.total = total
                    state.replans[phase.name] = list(pace.replans)
                    self._one(phase, bar)
        state.done, state.phase, state.step, state.begun = state.done + state.step, state.phase + 1, 0, False
        state.scale = 1.0
        self.optimizers = []
        self._save()

    def _seed(self, seed: int) -> None:
        """Seed what the run uses alone: ``torch.manual_seed`` notes a traceback for every kind of device, which takes 0.2 ms a step."""
        torch.default_generator.manual_seed(seed)
        if self.how.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _one(self, phase: Phase, bar: tqdm[Any]) -> None:
        """One step, or a retreat."""
        state, began = self.state, time.perf_counter()
        self._seed(_mixed(self.how.seed, state.phase, state.step) + self.how.crew.rank)
        batch = self.learner.batch(state.phase, state.step)
        found = self.learner.learn(self.working.copy, state.phase, batch)
        norm = self._gradients(phase, found)
        values = {name: float(value) for name, value in found.items()}
        loss = values["loss"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return self._retreat(f"the loss is {loss} and the gradient's norm {norm}", bar)
        if self.learner.watches and state.leaps(loss, state.step):
            return self._retreat(f"the loss leapt to {loss:.3g} from {state.mean:.3g}", bar)
        self._descend(phase)
        state.step += 1
        state.count += self.learner.count(batch) * self.how.crew.world
        state.seconds += time.perf_counter() - began
        self._tell(phase, values, bar)
        due = state.step % max(1, state.total // VALIDATIONS) == 0 and state.step < state.total
        # Only the first process knows how long validations took, and all settle together.
        if due and self.how.crew.agree(self.validating <= VALIDATION_SHARE * state.seconds) and not self._validate(phase, bar):
            return None
        if state.step % max(1, state.total // CHECKPOINTS) == 0 and state.step < state.total:  # the last step is validated first
            self._save()
        return None

    def _gradients(self, phase: Phase, found: dict[str, Tensor]) -> float:
        """Bring the gradients to the float32 parameters, averaged over all processes and clipped; gives their norm."""
        self.working.gather()
        moved = [p for group in self.groups for p in group.parameters if p.grad is not None]
        if not self.sharded:
            self.how.crew.average([p.grad for p in moved if p.grad is not None])
        if self.how.crew.world > 1:
            means = torch.stack([value.detach().float() for value in found.values()])
            self.how.crew.average([means])
            found.update(zip(found, means, strict=True))
        if phase.clip is None:
            return 0.0
        return float(sharded.whole(nn.utils.clip_grad_norm_(moved, phase.clip)))

    def _descend(self, phase: Phase) -> None:
        factor = factor_of(phase, self.state.step, self.state.total) * self.state.scale
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.working.follow()

    def _prepare(self) -> None:
        """Optimisers and the working copy for the phase at hand."""
        groups = [g for g in self.learner.groups(self.state.phase) if g.parameters]
        self.groups: list[Group] = [replace(g, parameters=tuple(self.working.part(p) for p in g.parameters)) for g in groups]
        self.optimizers = optimizers.build(self.groups)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["base"] = group["lr"]
        self.working.move({p for group in groups for p in group.parameters})
        self.working.begin()
        self.working.copy.train()

    def _validate(self, phase: Phase, bar: tqdm[Any]) -> bool:
        """A row of validation; False after a retreat, where a probe cannot read what the body has become."""
        self.working.settle()
        failed = ""
        if self.how.crew.leads:
            began = time.perf_counter()
            try:
                with torch.random.fork_rng(devices=[self.how.device] if self.how.device.type == "cuda" else []), torch.no_grad():
                    found = self.learner.validate(self.working.validated().eval(), self.state.phase)
                self.history.add(self.state.phase, self.state.done + self.state.step, {f"validation/{k}": v for k, v in found.items()})
            except TrainingFailed as error:
                failed = error.given
            self.working.validated().train()
            self.validating += time.perf_counter() - began
        if self.how.crew.agree(bool(failed)):
            self._retreat(f"validation found {failed or 'what no probe can read'}", bar, taken=True)
            return False
        return True

    def _tell(self, phase: Phase, values: dict[str, float], bar: tqdm[Any]) -> None:
        """A row of the curves now and then, and the bar."""
        state = self.state
        bar.update()
        self.recent.append(values)
        if state.step % max(1, state.total // ROWS) and state.step < state.total:
            return
        means = {name: sum(v[name] for v in self.recent) / len(self.recent) for name in values}
        count, seconds = self.told
        rate = (state.count - count) / max(state.seconds - seconds, 1e-9)
        self.recent, self.told = [], (state.count, state.seconds)
        lr = max((g["lr"] for optimizer in self.optimizers for g in optimizer.param_groups), default=0.0)
        if self.how.crew.leads:
            self.history.add(state.phase, state.done + state.step, {**means, "lr": lr, "per_second": rate, "seconds": state.seconds})
        if not bar.disable:
            _, losses = self.history.curve("loss")
            unit = self.learner.plan.unit
            bar.set_postfix_str(f"loss {means['loss']:.3f} {sparkline(losses)} {rate:,.0f} {unit}/s", refresh=False)

    def _retreat(self, reason: str, bar: tqdm[Any], *, taken: bool = False) -> None:
        """Back to the last checkpoint, with half the learning rate from there on; ``taken``: the bad step was taken before it was noticed.

        Raises:
            TrainingFailed: It was tried often enough.
        """
        at = self.state.done + self.state.step + (0 if taken else 1)
        scale, retreats, events = self.state.scale, self.state.retreats + 1, self.state.events
        found = self._newest()
        if found is None or retreats > MOST_RETREATS:
            raise TrainingFailed(
                f"{reason}, at step {at}, after {retreats - 1} retreats to a checkpoint with a smaller step",
                "a loss that falls",
                "give a smaller learning rate: --set objective.lr=...",
            )
        self._restore(found)
        self.state.scale, self.state.retreats = scale / 2, retreats
        where = f"back to step {self.state.done + self.state.step}, learning rate x {scale / 2:g}"
        self.state.events = [*events, f"at step {at} {reason}: {where}"]
        self._save()
        self._cut_history()
        bar.n = self.state.step

    def _pace(self, phase: Phase) -> Pace:
        """Time for this phase: its share, by steps, of what all phases from here on have."""
        follow = self.how.replans is not None
        recorded = (self.how.replans or {}).get(phase.name, self.state.replans.get(phase.name, []))
        if self.how.seconds is None or follow:
            return Pace(math.inf, list(recorded), follow)
        left = self.how.seconds - self.state.seconds
        to_come = [self.state.total - self.state.step, *(p.steps for p in self.phases[self.state.phase + 1 :])]
        return Pace(max(0.0, left) * to_come[0] / max(1, sum(to_come)), list(recorded), may_grow=phase.most > 0)

    def _most(self, phase: Phase) -> int:
        """Steps that a phase may grow to now; none late in it, where the learning rate has fallen."""
        return phase.most if self.state.step <= GROWS * self.state.total else 0

    def _newest(self) -> Checkpoint | None:
        """The last checkpoint, which all processes have read before any of them writes the next one."""
        found = self.checkpoints.newest()
        self.how.crew.wait()
        return found

    def _cut_history(self) -> None:
        if self.how.crew.leads:
            self.history.resume(self.state.done + self.state.step)

    def _save(self) -> None:
        self.working.settle()
        tensors: dict[str, Tensor] = {}
        for o, optimizer in enumerate(self.optimizers if self.how.crew.leads or self.sharded else ()):
            for i, parameter in enumerate(_parameters(optimizer)):
                state = optimizer.state.get(parameter, {})
                tensors |= {f"optimizer.{o}.{i}.{name}": sharded.whole(v) for name, v in state.items() if isinstance(v, Tensor)}
        if self.how.crew.leads:
            tensors |= {f"module.{name}": value for name, value in self.module.state_dict().items()}
            tensors = {name: value.detach().clone() for name, value in tensors.items()}  # tied weights share memory, files cannot
            self.checkpoints.write(self.state.phase, self.state.step, tensors=tensors, numbers=asdict(self.state))
        self.how.crew.wait()

    def _restore(self, found: Checkpoint) -> None:
        numbers = dict(found.numbers)
        numbers["replans"] = clock.replans(numbers["replans"])
        for name, value in numbers.items():  # in place: callers hold on to the state
            setattr(self.state, name, value)
        self.recent, self.told = [], (self.state.count, self.state.seconds)
        own = {name.removeprefix("module."): value for name, value in found.tensors.items() if name.startswith("module.")}
        self.module.load_state_dict(own)
        self.optimizers = []
        if not self.state.begun:
            return
        self._prepare()
        for name, value in found.tensors.items():
            if name.startswith("optimizer."):
                _, o, i, key = name.split(".", 3)
                parameter = _parameters(self.optimizers[int(o)])[int(i)]
                value = sharded.parted(value.to(parameter.device), parameter) if value.ndim else value.to(parameter.device)
                self.optimizers[int(o)].state[parameter][key] = optimizers.in_order_of(parameter, value)


def factor_of(phase: Phase, step: int, total: int) -> float:
    """Share of the base learning rate before step number ``step`` of ``total``."""
    rising, falling = max(1, int(phase.warmup * total)), int(phase.cooldown * total)
    if step < rising:
        return (step + 1) / rising
    left = total - step
    if left > falling:
        return 1.0
    share = left / (falling + 1)
    curve = share if phase.decay == "linear" else (1 - math.cos(math.pi * share)) / 2
    return phase.floor + (1 - phase.floor) * curve


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _mixed(*numbers: int) -> int:
    """One seed for several numbers (a multiplicative hash, 62 bits)."""
    found = 0x9E3779B97F4A7C15
    for number in numbers:
        found = ((found ^ (number & 0xFFFFFFFF)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        found ^= found >> 29
    return found >> 2
