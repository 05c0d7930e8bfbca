"""The common course of the rungs that move the body: head from a probe, a contrastive phase where labels are few, cross entropy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from warmstart.core.words import counted
from warmstart.engine import (
    answers,
    contrast,
    courses,
    cut,
    fit,
    linear,
    master_weights,
    predictor,
    probe,
    store,
    structured,
    training,
)
from warmstart.engine.courses import Course
from warmstart.engine.job import Fitted, Job, Plan
from warmstart.engine.network import Network, groups_by_depth
from warmstart.engine.seeds import seeded
from warmstart.engine.workbench import Workbench

ROUGH_PROBE_ROWS = 300
"""Rows behind the first head where time is short."""

SLACK = 1.3
"""Predicting the held rows, with what surrounds it, takes up to so many times its bare forward passes."""

OTHER_SPLITS = 1.25
"""Rows that the first heads of all splits are fitted on, for each row that one is (``probe.subset``), about."""

LEAST_CONTRASTIVE = 10
"""Contrastive steps that are worth a rung; where fewer would fit, each has half the rows."""

LEAST_EPOCHS, LEAST_ROWS = 0.3, 2_000
"""Less training than so many passes, and than so many rows, is not worth a rung."""

SEEN = 100
"""Nor is less than so many rows a class on average, or one pass. On Banking77 (77 classes, 64 rows of each) 0.3 passes gave 85.2 where a
probe had 88.2 in the same time, and one pass as much as the probe of all rows, 90.8; on SST-2 (two classes) such a part of a pass is better
than a probe."""


Groups = Callable[[Network, float], list[master_weights.Group]]
"""Which parameters of the body move, at this peak rate; the head is added."""


def plan(
    bench: Workbench, wanted: Course, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float, cost: float = 1.0
) -> Plan | None:
    """The course, shortened to ``seconds``: its epochs first, then all of them for a shorter contrastive phase. None where less than
    ``LEAST_EPOCHS``, or than ``LEAST_CONTRASTIVE`` steps, would fit.

    ``cost`` is that of one training step relative to training the same blocks in full.
    """
    whole = _timed(bench, wanted, train, held, seconds, cost)
    if whole is not None and not whole.shortened:
        return whole
    # With too little time for everything, a rougher first head costs less than missing epochs.
    return _timed(
        bench, replace(wanted, probe_rows=min(wanted.probe_rows or ROUGH_PROBE_ROWS, ROUGH_PROBE_ROWS)), train, held, seconds, cost
    )


def _timed(bench: Workbench, wanted: Course, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float, cost: float) -> Plan | None:
    n_train, n_held = len(train), len(held)
    once = training.prefix_seconds(bench, np.concatenate([train, held]), wanted.point) if wanted.point else 0.0
    head = 0.0
    if answers.is_structured(bench.task):
        head = structured.first_head_seconds(bench, train, wanted.head_epochs)
    elif wanted.head == "pooled":
        rows = probe.subset(bench, train, wanted.probe_rows)
        every, some = (training.prefix_seconds(bench, read, None) for read in (train, rows))
        once += min(every, OTHER_SPLITS * some) + probe.hint_seconds(bench, len(rows))
        n_points = len(bench.hint[0]) if bench.hint is not None else 1
        head = probe.seconds(bench, len(rows), n_points=n_points)
        if wanted.contrastive:  # and anew after it
            head += probe.seconds(bench, n_train, n_points=n_points, strengths=len(linear.STRENGTHS))
    predict = n_held * bench.mean_length * bench.forward_seconds()
    steps, each = wanted.contrastive, wanted.contrastive_rows
    row = cost * training.seconds(bench, n_rows=1, epochs=1, point=wanted.point)
    compared = row  # a contrastive step embeds rows twice where they do not go through the body together
    if steps and len(contrast.parts_of(bench, train[:each])) > 1:
        compared += training.seconds(bench, n_rows=1, epochs=1, point=wanted.point, passes=1.0)
    fixed = once / bench.fits + head + predict + 0.3
    epoch = n_train * row
    affordable = min(wanted.epochs, (seconds - fixed - steps * min(each, n_train) * compared) / max(epoch, 1e-9))
    if affordable < min(wanted.epochs, _least(bench, wanted, max(1, n_train))):
        steps, each = _contrastive(wanted, (seconds - fixed) / max(compared, 1e-9), n_train)
        affordable = 0.0
        if not steps:
            return None
    needed = steps * min(each, n_train) * compared + affordable * epoch
    settings = asdict(wanted) | {"epochs": round(affordable, 3), "most": wanted.epochs, "contrastive": steps, "contrastive_rows": each}
    settings["anew_epochs"] = round(min(wanted.anew_epochs, needed / max(epoch, 1e-9)), 3)
    shortened = affordable < wanted.epochs or (steps, each) != (wanted.contrastive, wanted.contrastive_rows)
    return Plan(settings, fixed + needed, shortened, once)


def _least(bench: Workbench, wanted: Course, n_train: int) -> float:
    """Passes over so many rows without which the course is not worth a rung."""
    least = min(LEAST_EPOCHS, LEAST_ROWS / n_train)
    if answers.is_structured(bench.task):
        return least if wanted.head_epochs else structured.LEAST_EPOCHS  # its head knows nothing yet
    return least if wanted.contrastive else max(least, min(1.0, SEEN * bench.n_classes / n_train))


def _contrastive(wanted: Course, affordable: float, n_train: int) -> tuple[int, int]:
    """Contrastive steps and the rows of each, where so many rows in all are affordable and no epoch; none where they would be too few."""
    for rows in (wanted.contrastive_rows, contrast.ROWS // 2):
        steps = int(min(wanted.contrastive, affordable / min(rows, n_train)))
        if steps >= min(LEAST_CONTRASTIVE, wanted.contrastive):
            return steps, rows
    return 0, 0


def run(
    bench: Workbench,
    train: NDArray[np.int64],
    held: NDArray[np.int64],
    job: Job,
    *,
    prepare: Callable[[nn.Module], None],
    groups: Groups,
    finish: Callable[[nn.Module], None],
) -> Fitted:
    """Fine-tune a copy of the backbone on ``train`` and predict ``held``.

    ``prepare`` and ``finish`` change the body in place before and after training (LoRA puts its adapters in, and merges them).

    Raises:
        CutRefused: The course starts at a cut that does not hold for this body.
        TrainingFailed: The loss is not finite.
    """
    how = Course(**job.settings)
    if how.point:
        bench.require_cut(how.point)
    if not job.pace.follow:
        bench.forward_seconds()
        bench.look()
        job.pace.after = after(bench, held)
    net = network_for(bench, train, how, job)
    if how.point:
        below = [p for p in net.head.points if p < how.point] if net.structured else None
        bench.prepare(np.concatenate([train, held]), how.point, below=below)
    prepare(plain_body(net))
    trainable, note = learn(bench, net, train, job, groups=groups, how=how)
    finish(plain_body(net))
    return fitted(bench, Network(net.body, net.head), held, point=how.point, trainable=trainable, note=note, settings=job.settings)


def learn(bench: Workbench, net: Network, train: NDArray[np.int64], job: Job, *, groups: Groups, how: Course) -> tuple[int, str]:
    """The course itself: the contrastive phase where there is one, then cross entropy. Gives trainable parameters and a note."""
    how, anew = courses.suited(bench, how, train), courses.starts_anew(bench, how, train)
    moving = groups(net, courses.rate(bench, how, train))
    trained_parameters = sum(p.numel() for g in moving for p in g.parameters)
    if how.contrastive and net.head is not None and len(np.unique(bench.targets[train])) > 1:
        contrast.run(
            bench,
            net,
            rows=train,
            groups=moving,
            point=how.point,
            steps=how.contrastive,
            at_once=how.contrastive_rows,
            job=job,
            by_batch=anew,
        )
        job.pace.may_skip = True
        states = training.pooled(bench, net, train, point=how.point)
        net.head = probe.fit_on(bench, states, train, points=net.head.points).head
    schedule = fit.Schedule(epochs=how.epochs, most=how.most, rows=how.rows)
    everything = [*moving, master_weights.Group(tuple(_head(net)), getattr(net.head, "lr", how.head_lr), 0.0)]
    note = ""
    if how.epochs > 0:
        done = training.run(
            bench,
            net,
            rows=train,
            groups=everything,
            point=how.point,
            schedule=schedule,
            smoothing=how.smoothing,
            job=job,
            by_batch=anew,
        )
        note = counted(done.steps, "step")
    return trained_parameters + head_size(net), note


def after(bench: Workbench, held: NDArray[np.int64]) -> float:
    """Seconds that predicting the held rows takes, with what surrounds it."""
    found = len(held) * bench.mean_length * bench.forward_seconds() * SLACK
    return found + (structured.answer_seconds(bench, len(held)) if answers.is_structured(bench.task) else 0.0)


def fitted(
    bench: Workbench, net: Network, held: NDArray[np.int64], *, point: int, trainable: int, note: str, settings: Mapping[str, Any]
) -> Fitted:
    """A trained network as the result of a rung, with its predictions of the held rows."""
    held_logits = training.predict(bench, net, held, point=point) if len(held) else np.zeros((0, bench.n_classes), np.float32)
    return Fitted(predictor.of(bench, net), held_logits, trainable, note, dict(settings))


def blocks_from(net: Network, point: int) -> list[list[nn.Parameter]]:
    """Parameters of the body from the cut on, output first; without those before the first block."""
    depth = groups_by_depth(plain_body(net), plain_trunk(net))
    n_blocks = net.trunk.n_blocks if net.trunk is not None else 0
    return depth[: 1 + n_blocks - point] if n_blocks else depth


def network_for(bench: Workbench, train: NDArray[np.int64], how: Course, job: Job) -> Network:
    """A copy of the backbone with the head that a course starts from."""
    body = copy.deepcopy(bench.backbone.model)
    if answers.is_structured(bench.task):
        return Network(body, structured.first_head(bench, train, how.head_epochs, job, share=_head_share(bench, train, how)))
    if how.head == "native":
        with seeded(job.seed):
            return Network(_native(bench, body).to(bench.device), None)
    rows = probe.subset(bench, train, how.probe_rows)
    points = courses.first_points(bench, len(rows))
    if how.anew_epochs and courses.starts_anew(bench, how, train):
        points = points[-1:]  # which the whole body comes to serve: digits with 50 a class, 98.2 % in place of 97.4 (one draw)
    return Network(body, probe.fit(bench, rows, points=points).head)


def _head_share(bench: Workbench, train: NDArray[np.int64], how: Course) -> float:
    """Of the time of a course, for the head that it starts from."""
    if bench.measured.get("forward") is None:  # a recorded plan is followed, and nothing measured
        return 1.0
    head = structured.first_head_seconds(bench, train, how.head_epochs)
    return head / max(1e-9, head + training.seconds(bench, n_rows=len(train), epochs=how.epochs, point=how.point))


def _native(bench: Workbench, body: nn.Module) -> nn.Module:
    return store.with_native_head(body, list(bench.labels), bench.task.hf_problem_type, modality=bench.modality.name)


def plain_body(net: Network) -> nn.Module:
    """The body alone, also inside a native classifier."""
    if net.head is not None:
        return net.body
    inner = getattr(net.body, str(net.body.base_model_prefix))
    assert isinstance(inner, nn.Module)  # noqa: S101 - narrows getattr
    return inner


def plain_trunk(net: Network) -> cut.Trunk | None:
    """The trunk as seen from the plain body."""
    return cut.find_trunk(plain_body(net))


def _head(net: Network) -> list[nn.Parameter]:
    if net.head is not None:
        return list(net.head.parameters())
    inside = {id(p) for p in plain_body(net).parameters()}
    return [p for p in net.body.parameters() if id(p) not in inside]


def head_size(net: Network) -> int:
    """Parameters of the head."""
    return sum(p.numel() for p in _head(net))


def whole_body(net: Network, *, lr: float, decay: float, weight_decay: float) -> list[master_weights.Group]:
    """Every parameter of the body, ``decay`` times as fast from each block to the one below it."""
    return sequence(groups_by_depth(plain_body(net), plain_trunk(net)), lr=lr, decay=decay, weight_decay=weight_decay)


def sequence(parameters: Sequence[Sequence[nn.Parameter]], *, lr: float, decay: float, weight_decay: float) -> list[master_weights.Group]:
    """Groups from the output downwards, each learning ``decay`` times as fast as the one above it (Howard & Ruder 2018)."""
    return [master_weights.Group(tuple(group), lr * decay**i, weight_decay) for i, group in enumerate(parameters) if group]


def nothing(_: Any) -> None:
    """The body needs no preparation."""
