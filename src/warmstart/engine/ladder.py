"""The ladder: climb from cheap to dear inside a time budget, on the same held-out rows, and remember every rung."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from warmstart.core.errors import CutRefused, DamagedModel, OutOfTime, TrainingFailed
from warmstart.core.protocols import Predictor, Strategy
from warmstart.engine import answers, store
from warmstart.engine.clock import Clock, Pace, replans
from warmstart.engine.job import Job, Plan
from warmstart.engine.splits import Split
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench

REFIT = 1.25
"""A refit on all rows costs about this many fits on one fold's training rows."""

REPEATS_SHARE = 0.05
"""Repeats of the cross-validation get at most this share of the time: where rows are few, rows are what is scarce, and a further
repeat on the same rows narrows the interval little."""

GROWTH = 0.93
"""Share of the time left that a fit may grow into."""

LATE, LAST = 0.05, 0.09
"""Share of the budget by which a fit may be late before it is given up: it has cost its time by then, and ten per cent are promised. The
second where no rung but the majority has been climbed, so that giving it up would leave nothing."""

AFTER, QUIET_AFTER = 6.0, 3.0
"""Seconds that are kept for choosing, saving, hashing, the learning curve and the report; and what they take where nothing else runs."""

Enough: TypeAlias = "Callable[[Step, int], bool]"
"""Whether a step needs no more splits than these first ones."""


@dataclass
class Ladder:
    """One climb. ``splits`` in the order of use; ``folder`` takes what a resumed run needs; ``follow`` maps labels to recorded steps.

    ``kept_point`` is the cut that the probe's pass keeps for a later rung.
    ``n_test`` test rows are still to be predicted. ``reserved`` seconds are those that later rungs will want. ``sound``: one has learned.
    """

    bench: Workbench
    splits: list[Split]
    clock: Clock
    folder: Path
    n_test: int = 0
    follow: dict[str, dict[str, Any]] | None = None
    kept_point: int | None = None
    dearest: float = 0.0
    reserved: float = 0.0
    sound: bool = False

    @property
    def single(self) -> bool:
        """Whether one split gives the estimate, so that its model is the result."""
        return len(self.splits) == 1

    def climb(self, label: str, strategy: Strategy, *, seconds: float, enough: Enough | None = None, whole: bool = False) -> Step:
        """One rung on as many splits as fit into ``seconds`` (and its refit), or passed over with the reason.

        ``enough`` is asked after each split, with the held-out logits so far, whether the others may be left out. ``whole``: not shortened.
        """
        step = Step(label, strategy)
        self.bench.look()
        try:
            if not self._decide(step, seconds, whole):
                return step
            self._announce(step)
            self._fits(step, enough)
            self.sound = self.sound or strategy.order > 0
        except (CutRefused, TrainingFailed, OutOfTime) as error:
            step.folds, step.logits = 0, None
            step.note, step.error = f"{error.kind}: {error.given}", error
        finally:
            self.bench.deadline = math.inf
        return step

    def widened(self, step: Step) -> Step:
        """A rung that made do with less, or with nothing, for others of which nothing came: on more splits or rows, where there is time for
        that now."""
        if not step.folds:
            return self.climb(step.label, step.strategy, seconds=self.left())
        affordable = None if self.follow is not None else self._affordable(step.strategy, self.left())
        if affordable is None:
            return step
        plan, folds = affordable
        same = plan.settings == step.settings
        rows, before = (settings.get("rows") or math.inf for settings in (plan.settings, step.settings))
        if (plan.shortened and rows <= before) or folds < step.folds or (same and folds == step.folds):
            return step
        wide = Step(step.label, step.strategy, dict(plan.settings), folds, plan.seconds * folds, once=plan.once)
        memory = self.bench.probe_rows, self.bench.hint, self.bench.probes
        if not same:
            self.bench.hint, self.bench.probes = None, {}
            self.bench.probed(wide.settings)
            for path in self._folder(step).glob("fold*"):
                path.unlink()  # before the plan is written: a run that is resumed in between must not take them for the new ones
        found = self._instead_of(step, wide)
        if found is step:
            self.bench.probe_rows, self.bench.hint, self.bench.probes = memory
        return found

    def deepened(self, step: Step) -> Step:
        """A rung that was measured on a few splits, on as many more as there is time for now: what it is chosen by is less of a chance."""
        more = int(GROWTH * max(0.0, self.left()) / step.own.measured) if step.folds and step.seconds and self.follow is None else 0
        folds = min(step.folds + more, max(step.folds, self._first_repeat))
        if folds == step.folds:
            return step
        deep = replace(step, folds=folds, predicted=step.once + step.own.predicted * folds, seconds=0.0, replans={})
        return self._instead_of(step, deep)

    def _instead_of(self, step: Step, further: Step) -> Step:
        """A rung measured further than it was; as it was where that comes to nothing."""
        self._write_plan(further)
        self._announce(further)
        try:
            self._fits(further, None)
        except (TrainingFailed, OutOfTime):
            self._write_plan(step)
            return step
        finally:
            self.bench.deadline = math.inf
        return further

    def refit(self, step: Step) -> Predictor:
        """The rung's model: that of the single split, or a new fit on all rows with the same settings."""
        if self.single:
            made: Predictor = self.bench.fitted[step.label][0]()
            return made
        rows = np.arange(len(self.bench.inputs))
        self.bench.look()
        left = self.clock.remaining() - self._ending
        wanted = step.own.predicted * REFIT  # the estimate is of a fit of this length
        seconds = max(left, min(wanted, left + LATE * (self.clock.budget or 0.0)))
        job = self._job(step, "final", len(self.splits), seconds)
        fitted = step.strategy.fit(self.bench, self._learned(step.strategy, rows), rows[:0], job)
        step.replans |= job.replans
        return fitted.predictor

    def held_rows(self, folds: int) -> NDArray[np.int64]:
        """The held rows of the first splits, one after another."""
        return np.concatenate([held for _, held in self.splits[:folds]])

    def _decide(self, step: Step, seconds: float, whole: bool) -> bool:
        if self.follow is not None:
            recorded = self.follow.get(step.label)
            if recorded is None or not recorded["folds"]:
                step.note = "not climbed in the recorded plan"
                return False
            step.settings, step.folds, step.replans = dict(recorded["settings"]), recorded["folds"], replans(recorded["replans"])
            return True
        done = self._read(step, "plan")
        if done is not None:
            step.settings, step.folds = done["settings"], done["folds"]
            step.predicted, step.once = done["predicted"], done.get("once", 0.0)
            return True
        found = self._affordable(step.strategy, seconds, whole=whole)
        if found is None:
            step.note = f"does not fit {'in full ' * whole}into the {max(0.0, seconds):.0f} s left"
            return False
        plan, step.folds = found
        step.settings, step.predicted, step.once = plan.settings, plan.seconds * step.folds, plan.once
        self._write_plan(step)
        return True

    def left(self) -> float:
        """Seconds left for climbing: what the budget leaves after testing, saving and drawing, and a refit of the dearest rung so far."""
        return self.clock.remaining() - self.after

    @property
    def after(self) -> float:
        """Predicted seconds of everything after the climb."""
        return self._ending + (0.0 if self.single else self.dearest * REFIT)

    @property
    def _ending(self) -> float:
        """The same without a refit."""
        measured = self.bench.measured
        each = max(measured.get("structured_answer", 0.0), measured.get("classic_answer", 0.0))
        if "forward" in measured:
            each += self.bench.mean_length * measured["forward"] * 1.2
        slower = measured.get("slower", 1.0)
        return max(AFTER, QUIET_AFTER * slower) + self.n_test * each * slower

    def fit_seconds(self, strategy: Strategy) -> float:
        """Predicted seconds of one fit of a rung in full; infinite where it cannot be planned at all. One that refuses this body costs
        nothing: climbing it gives the reason."""
        train, held = self._learned(strategy, self.splits[0][0]), self.splits[0][1]
        self.bench.fits = len(self.splits)
        with suppress(CutRefused):
            plan = strategy.plan(self.bench, train=train, held=held, seconds=math.inf)
            return math.inf if plan is None else plan.seconds
        return 0.0

    def altogether(self, fits: Sequence[float]) -> float:
        """Seconds of climbing rungs of such fits in full, and of a refit of the dearest as far as ``left`` keeps no time for it."""
        return sum(fits) * len(self.splits) + (0.0 if self.single else REFIT * max(0.0, max(fits, default=0.0) - self.dearest))

    def fits(self, strategy: Strategy, seconds: float) -> bool:
        """Whether a rung could be climbed in so many seconds, be it shortened and on one split."""
        with suppress(CutRefused):
            return self._affordable(strategy, seconds) is not None
        return False

    def _affordable(self, strategy: Strategy, seconds: float, *, whole: bool = False) -> tuple[Plan, int] | None:
        """As many splits as fit in full; a shortened course only where not even one does, and it need not be ``whole``."""
        first_repeat = self._first_repeat
        train, held = self._learned(strategy, self.splits[0][0]), self.splits[0][1]
        for folds in dict.fromkeys([len(self.splits), first_repeat, 1]):
            each, self.bench.fits = self._each(folds, seconds)
            plan = strategy.plan(self.bench, train=train, held=held, seconds=each)
            if plan is None or (plan.shortened and (whole or folds > 1)):
                continue
            plan = replace(plan, seconds=plan.seconds + plan.once * (1 / folds - 1 / self.bench.fits))
            if folds <= first_repeat or plan.seconds * (folds - first_repeat) <= REPEATS_SHARE * seconds:
                return plan, folds
        return None

    def _each(self, folds: int, seconds: float) -> tuple[float, float]:
        """What each of so many fits may take of ``seconds``, and how many fits share what the first one stores: the refit too, unless the
        time that ``left`` keeps for that of the dearest rung so far will do (only one rung is refitted)."""
        each = (seconds + REFIT * self.dearest) / (folds + REFIT)
        return (seconds / folds, folds) if self.single or each <= self.dearest else (each, folds + REFIT)

    def _learned(self, strategy: Strategy, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What a rung learns from: these rows, with their views where it runs the body."""
        return self.bench.spread(rows) if strategy.serve_cost >= 1 else rows

    @property
    def _first_repeat(self) -> int:
        """Splits after which every row has been held once."""
        every = len(self._seen(len(self.splits)))
        return next((i for i in range(1, len(self.splits)) if len(self._seen(i)) >= every), len(self.splits))

    def _seen(self, folds: int) -> NDArray[np.int64]:
        return np.unique(self.held_rows(folds))

    def _fits(self, step: Step, enough: Enough | None) -> None:
        parts: list[NDArray[np.float32]] = []
        for fold, (train, held) in enumerate(self.splits[: step.folds]):
            name = f"fold{fold}"
            done = self._read(step, name)
            if done is None:
                self.bench.deadline = self._deadline(step)
                try:
                    done = self._fit(step, name, fold, train, held)
                except OutOfTime:
                    if not fold:
                        raise
                    step.shorten(fold)  # what was done so far is a smaller, but sound, estimate
                    self._write_plan(step)
                    break
            else:
                self._remember(step)
            parts.append(done["logits"])
            step.logits = answers.joined(parts)
            step.seconds += done["seconds"]
            step.trainable, step.note = done["trainable"], done["note"]
            step.replans |= replans(done["replans"])
            if enough is not None and self.follow is None and fold + 1 < step.folds and enough(step, fold + 1):
                step.shorten(fold + 1)
                self._write_plan(step)
                break
        self.dearest = max(self.dearest, step.own.measured)

    def _fit(self, step: Step, name: str, fold: int, train: NDArray[np.int64], held: NDArray[np.int64]) -> dict[str, Any]:
        began = time.perf_counter()
        job = self._job(step, name, fold, self._allowance(step, fold))
        fitted = step.strategy.fit(self.bench, self._learned(step.strategy, train), held, job)
        if fitted.settings and fitted.settings != step.settings:  # it had to make do with less, and so do further fits, and the refit
            step.settings = dict(fitted.settings)
            self._write_plan(step)
        if self.single:
            fitted.predictor.save(self._folder(step) / "fitted", labels=self.bench.labels, temperature=1.0)
            self._remember(step)
        numbers = {
            "seconds": time.perf_counter() - began,
            "trainable": fitted.trainable,
            "note": fitted.note,
            "replans": job.replans,
        }
        store.write_tensors(self._folder(step) / f"{name}.safetensors", {"logits": fitted.held_logits})
        self._write(step, name, numbers)
        if job.checkpoint is not None:
            job.checkpoint.unlink(missing_ok=True)
        return {**numbers, "logits": fitted.held_logits}

    def _allowance(self, step: Step, fold: int) -> float:
        """Seconds that one fit may take: as predicted, or more where nobody else needs the time."""
        if not step.predicted:
            return float("inf")
        once = step.once if fold == 0 else 0.0  # of which the prediction for one fit has its share
        own = step.own.predicted * 1.05 + once
        return max(min(own, self.left()), once + GROWTH * self._each(step.folds - fold, self.left() - self.reserved - once)[0])

    def _deadline(self, step: Step) -> float:
        """When a fit is given up. One that an earlier attempt may have begun, and that is all there is, is brought to its end: what is left
        to do of it takes less than the whole."""
        if self.follow is not None:
            return math.inf
        left = self.left() + (LATE if self.sound else LAST) * (self.clock.budget or 0.0)
        begun = self.clock.spent_before > 0 and not self.sound
        return time.perf_counter() + (max(left, step.predicted / step.folds) if begun else left)

    def decided(self, name: str, decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What an interrupted run decided under this name, else what ``decide`` says now, written down for a resumed run."""
        path = self.folder / "rungs" / f"{name}.json"
        found = store.read_object(path)
        if not found:
            found = decide()
            store.write_json(path, found)
        return found

    def _job(self, step: Step, name: str, fold: int, seconds: float) -> Job:
        follow = self.follow is not None
        parts = {key.removeprefix(f"{name}."): found for key, found in step.replans.items() if key.startswith(f"{name}.")}
        pace = Pace(seconds, list(step.replans.get(name, [])), follow, may_grow=self.single, parts=parts)
        return Job(name, step.settings, fold, pace, self._folder(step), None if self.bench.quiet else step.label)

    def _write_plan(self, step: Step) -> None:
        self._write(step, "plan", {"settings": step.settings, "folds": step.folds, "predicted": step.predicted, "once": step.once})

    def _announce(self, step: Step) -> None:
        if not self.bench.quiet:
            fits = f"{step.folds} fits" if step.folds > 1 else "1 fit"
            about = f", about {step.predicted:.0f} s" if step.predicted else ""
            tqdm.write(f"{step.label}: {fits}{about}", file=sys.stderr)

    def _folder(self, step: Step) -> Path:
        return self.folder / "rungs" / step.label.replace(" ", "_")

    def _read(self, step: Step, name: str) -> dict[str, Any] | None:
        """What an interrupted run left of this step."""
        path = self._folder(step) / f"{name}.json"
        found = store.read_object(path)
        if not found or not name.startswith("fold"):
            return found or None
        try:
            return {**found, "logits": store.read_tensors(path.with_suffix(".safetensors"))["logits"].numpy()}
        except DamagedModel:
            return None

    def _write(self, step: Step, name: str, value: dict[str, Any]) -> None:
        store.write_json(self._folder(step) / f"{name}.json", value)

    def _remember(self, step: Step) -> None:
        """The model of a single split is that of the rung. It stays on the disk until it is wanted: of a whole ladder memory holds one."""
        if self.single:
            from warmstart.core import registry

            load = partial(
                registry.module("strategies", step.strategy.name).load,
                self._folder(step) / "fitted",
                modality=self.bench.modality,
                device=self.bench.device,
                precision=self.bench.precision,
                max_length=self.bench.max_length,
            )
            self.bench.fitted[step.label] = (load, step.settings)
