"""Model soups: several courses of fine-tuning that differ in the order of the rows, averaged in their weights.

One more course does not make the model larger or slower, so it turns spare time into accuracy where a longer course only learns the
training rows by heart. Averages work because all courses start from the same body and the same head (Wortsman et al. 2022,
arXiv:2203.05482).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import DamagedModel, OutOfTime
from warmstart.engine import courses, finetune, store, training
from warmstart.engine.clock import Pace
from warmstart.engine.courses import Course
from warmstart.engine.finetune import Groups
from warmstart.engine.job import Fitted, Job, Plan
from warmstart.engine.network import Network, PooledHead
from warmstart.engine.workbench import Workbench

LEAST, USUAL, MOST = 2, 3, 10
"""Courses in a soup: fewer are none, so many are planned with all the time there is, and beyond so many a further one changes little. On
SST-2 two courses averaged were 0.7 points better than each, four 1.1."""

STARTER = "full"
"""The rung whose network is the first course, where it was climbed: it began alike, and has been paid for."""

SEEDS_APART = 1_000
"""Between the seeds of two courses, so that they meet those of no fold."""

SPARE = 1.1
"""A further course is begun where so many times the longest one so far is left."""


def plan(
    bench: Workbench,
    wanted: Course,
    *,
    train: NDArray[np.int64],
    held: NDArray[np.int64],
    seconds: float,
    cost: float,
    courses: int | None,
    usual: int,
) -> Plan | None:
    """As many whole courses as ``seconds`` allow, or so many as were asked for; None where fewer than ``LEAST`` fit.

    Where the rung ``STARTER`` left its network, that is the first of them. With all the time there is (infinite ``seconds``) it would be
    ``usual``: what a soup takes beyond them is time that no other rung wants.
    """
    starter = STARTER if STARTER in bench.fitted else ""
    if starter:  # which began with a head of so many rows: others can be averaged with it only if theirs standardise alike
        wanted = replace(wanted, probe_rows=bench.fitted[starter][1]["probe_rows"])
    one = finetune.plan(bench, wanted, train=train, held=held, seconds=math.inf, cost=cost)
    if one is None:
        return None
    fitting = usual if math.isinf(seconds) else int(seconds / one.seconds) + bool(starter)
    chosen = courses if courses is not None and math.isinf(seconds) else min(courses or MOST, fitting)
    if chosen < (courses or LEAST):
        return None
    settings = {**one.settings, "courses": chosen, "most_courses": courses or MOST, "starter": starter}
    free = bool(starter) or (math.isinf(seconds) and courses is None)  # before the climb: the starter will have been climbed by then
    return Plan(settings, max(1, chosen - free) * one.seconds, once=one.once)


def run(bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job, *, groups: Groups) -> Fitted:
    """Run the courses one after another and average them.

    A course is never shortened. Where the next one would not fit any more, the soup is what has been cooked so far, and ``replans``
    records ``(courses, courses)``. Where training may grow, further courses follow while there is time.

    Raises:
        OutOfTime: Not even the first course ended in time.
        TrainingFailed: The loss is not finite.
    """
    settings = dict(job.settings)
    planned, most, starter = (settings.pop(name) for name in ("courses", "most_courses", "starter"))
    wanted = most if job.pace.may_grow else planned
    how = Course(**settings)
    start = finetune.network_for(bench, train, how, job)
    sums = _Sums(None if job.folder is None else job.folder / f"{job.name}.soup.safetensors")
    if not sums.courses and starter and _alike(start, network := bench.fitted[starter][0]().network):
        sums.add(network)
    longest = 0.0
    if not job.pace.follow:
        job.pace.after = finetune.after(bench, held)
    while sums.courses < wanted and not _ends(job.pace, sums.courses, longest):
        began = time.perf_counter()
        try:
            sums.add(_course(bench, start, train, job, groups=groups, how=how, number=sums.courses))
        except OutOfTime:
            if not sums.courses:
                raise
            job.pace.replans.append((sums.courses, sums.courses))
            break
        longest = max(longest, time.perf_counter() - began)
    trainable = sum(p.numel() for group in groups(start, courses.rate(bench, how, train)) for p in group.parameters)
    trainable += finetune.head_size(start)
    sums.average_into(start)
    if courses.starts_anew(bench, how, train):
        training.settle_norms(bench, start, train)
    note = f"{sums.courses} course{'s' if sums.courses != 1 else ''} averaged"
    found = finetune.fitted(bench, start, held, point=how.point, trainable=trainable, note=note, settings=job.settings)
    sums.forget()
    return found


def _alike(start: Network, other: Network) -> bool:
    """Whether a network began as ``start`` did: heads that standardise differently cannot be averaged."""
    if not isinstance(start.head, PooledHead) or not isinstance(other.head, PooledHead):
        return start.head is None and other.head is None
    return start.head.points == other.head.points and torch.equal(start.head.shift, other.head.shift)


def _ends(pace: Pace, done: int, longest: float) -> bool:
    """Whether no further course is begun after ``done``; a recorded run is followed."""
    if pace.follow:
        return (done, done) in pace.replans
    left = pace.seconds - (time.perf_counter() - pace.made) - pace.after
    if not done or left >= SPARE * longest:
        return False
    pace.replans.append((done, done))
    return True


def _course(bench: Workbench, start: Network, train: NDArray[np.int64], job: Job, *, groups: Groups, how: Course, number: int) -> Network:
    """One course from the common start, in an order of rows of its own."""
    own = replace(
        job,
        name=f"{job.name}.{number}",
        settings={},
        seed=job.seed + SEEDS_APART * number,
        pace=Pace(math.inf, [], job.pace.follow),
        progress=None if job.progress is None else f"{job.progress} {number + 1}",
    )
    net = copy.deepcopy(start)
    finetune.learn(bench, net, train, own, groups=groups, how=how)
    if own.checkpoint is not None:
        own.checkpoint.unlink(missing_ok=True)
    return net


class _Sums:
    """The sum of the weights of the courses so far, in float32, kept in a file from which an interrupted run goes on."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.courses = path, 0
        self.tensors: dict[str, Tensor] = {}
        if path is not None and path.exists():
            with suppress(DamagedModel):  # a damaged one only costs the courses it held
                self.tensors = store.read_tensors(path)
                self.courses = int(self.tensors.pop("courses"))

    def add(self, net: nn.Module) -> None:
        for name, value in _floating(net.state_dict()).items():
            self.tensors[name] = self.tensors[name] + value if name in self.tensors else value.clone()
        self.courses += 1
        if self.path is not None:
            store.write_tensors(self.path, {**self.tensors, "courses": torch.tensor(self.courses)})

    def average_into(self, net: nn.Module) -> None:
        with torch.no_grad():
            for name, value in _floating(net.state_dict()).items():
                value.copy_(self.tensors[name] / self.courses)

    def forget(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _floating(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if value.is_floating_point()}
