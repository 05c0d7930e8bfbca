"""Tasks whose answer is not one row of class logits (text, boxes, maps): a head on unpooled states, alone or together with the body.

Answers are kept in the task's *compact* form, arrays whose second axis may differ between batches; see ``core.structured.StructuredTask``.
Shapes: N rows of the bench, B of a batch.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import DamagedModel
from warmstart.core.words import counted
from warmstart.engine import batches, cut, fit, master_weights, network, predictor, store
from warmstart.engine.answers import compact, joined, loss
from warmstart.engine.answers import structured as structured_task
from warmstart.engine.clock import Pace
from warmstart.engine.job import Fitted, Job, Plan
from warmstart.engine.network import Network
from warmstart.engine.predictor import in_precision
from warmstart.engine.seeds import seeded
from warmstart.engine.workbench import Workbench

ROWS, LR, WEIGHT_DECAY = 16, 2e-3, 0.01
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1_500, 8.0, 60.0
"""A head sees so many batches, within so many passes over the rows, where the task does not say otherwise."""
LEAST_EPOCHS = 2.0
BODY_STEPS = 600
TIMED, OVERHEAD = 4, 1.5
"""Steps that are timed before anything is planned, of which the quickest counts (the first pays for allocation), and what reading
states and the optimiser add."""
STEPS_TAKEN = "steps taken"
"""Beside the weights of a head that is kept for a run that goes on."""


def epochs(task: Any, n_train: int) -> float:
    """Passes over the training rows that a head wants."""
    own = getattr(task, "head_epochs", None) or getattr(task, "epochs", None)
    return float(own(n_train)) if own is not None else float(np.clip(STEPS * ROWS / max(1, n_train), FEWEST_EPOCHS, MOST_EPOCHS))


def rows_at_once(task: Any) -> int:
    """Rows of a training batch."""
    return int(getattr(task, "rows", ROWS))


def fresh(bench: Workbench, rows: NDArray[np.int64], seed: int) -> Any:
    """The task's head for the bench's body, untrained.

    Raises:
        CutRefused: The body has no states that such a head can read.
    """
    with seeded(seed):
        return structured_task(bench.task).head(bench, rows).to(bench.device)


def stored_states(bench: Workbench, rows: NDArray[np.int64], points: Sequence[int], batch: cut.Batch) -> list[Tensor]:
    """Unpooled states of rows that were prepared, as the body has them for this batch."""
    return [bench.hidden(rows, point, batch) for point in points]


def outputs_of(bench: Workbench, net: Network, point: int) -> Callable[..., Tensor]:
    """A function from rows of the bench to raw outputs, from the stored states up to ``point`` (0: from the raw rows)."""
    if point == 0:
        return lambda rows, length=0: net(bench.batch(rows, length=length))
    assert net.trunk is not None  # noqa: S101 - a cut was proved, so there is a trunk
    tail = cut.Tail(net.body, net.trunk, point)
    below = [p for p in net.head.points if p <= point and p < net.trunk.n_blocks]

    def from_cut(rows: NDArray[np.int64], length: int = 0) -> Tensor:
        batch = bench.batch(rows, length=length)
        stored = dict(zip(below, stored_states(bench, rows, below, batch), strict=True))
        return net.outputs_from_cut(tail, bench.hidden(rows, point, batch), stored, batch)

    return from_cut


def from_store(bench: Workbench, net: Network) -> Callable[..., Tensor]:
    """A function from rows of the bench to raw outputs, all from stored states: the body does not run."""

    def outputs(rows: NDArray[np.int64], length: int = 0) -> Tensor:
        batch = bench.batch(rows, length=length)
        return net.read(stored_states(bench, rows, net.head.points, batch), batch)

    return outputs


@torch.inference_mode()
def answers(bench: Workbench, net: Network, outputs: Callable[..., Tensor], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Compact answers (n, ...) for rows of the bench."""
    parts, order = [], []
    taken = 0.0
    for part, length in batches.frozen(bench.lengths[rows], net.body) if len(rows) else []:
        bench.check_time()
        raw = outputs(rows[part], length=length)
        began = time.perf_counter()
        parts.append(compact(bench.task, net.head, raw))
        taken += time.perf_counter() - began
        order.append(part)
    if len(rows) >= rows_at_once(bench.task):
        _remember(bench, "structured_answer", taken / len(rows))
    return joined(parts, order)


def plan(bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
    """A head trained alone on stored states: as many passes as there is time for.

    Raises:
        CutRefused: The body has no states that such a head can read.
    """
    head = fresh(bench, train, bench.seed)
    once = bench.lacking(np.concatenate([train, held]), points=head.points) * bench.mean_length * bench.forward_seconds()
    each = seconds_per_row(bench, head)
    fixed = once / bench.fits + answer_seconds(bench, len(held)) + 0.5
    wanted = epochs(bench.task, len(train))
    affordable = min(wanted, (seconds - fixed) / max(1e-9, each * len(train)))
    if affordable < min(wanted, LEAST_EPOCHS):
        return None
    settings = {"epochs": round(affordable, 3), "most": wanted}
    return Plan(settings, fixed + affordable * each * len(train), shortened=affordable < wanted, once=once)


def seconds_per_row(bench: Workbench, head: Any = None) -> float:
    """Of one pass of training a head on stored states: as measured by the last one, else on a few rows through the body."""
    if "structured" not in bench.measured:
        head = fresh(bench, np.arange(len(bench.inputs)), bench.seed) if head is None else head
        rows = np.arange(min(len(bench.inputs), rows_at_once(bench.task)))
        net = Network(bench.backbone.frozen, copy.deepcopy(head))
        batch = bench.batch(rows)
        with torch.no_grad():
            states = network.unpooled(net.body, net.trunk, batch, head.points)
        taken = []
        for _ in range(TIMED):
            began = time.perf_counter()
            outputs = net.read([state.detach() for state in states], batch)
            loss(bench.task, net.head, outputs, [bench.targets[int(i)] for i in rows], 0.0).backward()  # type: ignore[no-untyped-call]
            taken.append(time.perf_counter() - began)
        _remember(bench, "structured", OVERHEAD * min(taken) / len(rows))
        compact(bench.task, net.head, outputs.detach())
        began = time.perf_counter()
        compact(bench.task, net.head, outputs.detach())
        _remember(bench, "structured_answer", OVERHEAD * (time.perf_counter() - began) / len(rows))
    return bench.measured["structured"] * bench.measured.get("slower", 1.0)


def _remember(bench: Workbench, what: str, seconds: float) -> None:
    """A rate as it is while nobody else uses the machine."""
    bench.measured[what] = seconds / bench.measured.get("slower", 1.0)


def answer_seconds(bench: Workbench, n: int) -> float:
    """Predicted seconds of bringing the raw outputs of so many rows into compact form, and of the head before."""
    each = seconds_per_row(bench)
    return n * (bench.measured["structured_answer"] * bench.measured.get("slower", 1.0) + each)


def trained(bench: Workbench, rows: NDArray[np.int64], settings: Mapping[str, Any], job: Job, pace: Pace) -> tuple[Any, str]:
    """A head that learned from stored states of these rows, and a note; found once for the same rows and settings."""
    known = _known(bench, rows, settings["epochs"], job.seed)
    kept = None if job.folder is None else job.folder.parent / "heads" / f"{hashlib.sha256(known).hexdigest()[:32]}.safetensors"
    if known not in bench.probes and kept is not None and kept.exists():
        with suppress(DamagedModel):  # a damaged one is trained again
            bench.probes[known] = _kept(fresh(bench, rows, job.seed), store.read_tensors(kept))
    if known not in bench.probes:
        net = Network(bench.backbone.frozen, fresh(bench, rows, job.seed))
        bench.prepare_states(rows, net.head.points)
        outputs, lengths = from_store(bench, net), bench.lengths[rows]
        how = fit.Schedule(epochs=settings["epochs"], most=settings["most"], tokens=_tokens(lengths), rows=rows_at_once(bench.task))

        def loss_of(positions: NDArray[np.int64]) -> Tensor:
            chosen = rows[positions]
            return loss(bench.task, net.head, outputs(chosen), [bench.targets[int(i)] for i in chosen], 0.0)

        checkpoint = None if job.checkpoint is None else job.checkpoint.with_suffix(".head.safetensors")
        done = fit.train(
            loss_of,
            [master_weights.Group(tuple(net.head.parameters()), getattr(net.head, "lr", LR), WEIGHT_DECAY)],
            stream=fit.order(lengths, how, (bench.seed, job.seed)),
            schedule=how,
            seed=job.seed,
            pace=pace,
            checkpoint=checkpoint,
            progress=job.progress,
        )
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        if done.steps - done.first >= 10:
            share = len(rows) * how.epochs * (done.steps - done.first) / max(1, done.steps)
            _remember(bench, "structured", done.seconds / share)
        tensors = {**net.head.state_dict(), STEPS_TAKEN: torch.tensor(done.steps)}
        if kept is not None:
            store.write_tensors(kept, tensors)
        bench.probes[known] = _kept(net.head.cpu(), tensors)
    head, note = bench.probes[known]
    return copy.deepcopy(head).to(bench.device), note


def _known(bench: Workbench, rows: NDArray[np.int64], passes: float, seed: int) -> bytes:
    """What decides a head."""
    return rows.tobytes() + repr(("structured", bench.backbone.fingerprint, passes, seed)).encode()


def _kept(head: Any, tensors: dict[str, Tensor]) -> tuple[Any, str]:
    """A head with these weights, and its note."""
    steps = int(tensors.pop(STEPS_TAKEN))
    head.load_state_dict(tensors)
    return head, f"head of points {','.join(map(str, head.points))}, {counted(steps, 'step')}"


def _tokens(lengths: NDArray[np.int64]) -> int:
    """A batch is cut by its rows alone; sounds and images of one batch are alike in length."""
    return int(lengths.max()) * 4096


def probe(bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
    """The head alone: the body stays as it is, and runs once over each row."""
    if not job.pace.follow:
        job.pace.after = answer_seconds(bench, len(held)) + len(held) * bench.mean_length * bench.forward_seconds()
    head, note = trained(bench, train, job.settings, job, job.pace)
    net = Network(bench.backbone.model, head)
    if len(held):
        bench.prepare_states(held, head.points)
    reader = Network(bench.backbone.frozen, head)
    found = answers(bench, reader, from_store(bench, reader), held)
    return Fitted(predictor.of(bench, net), found, count(head), note, dict(job.settings))


def count(head: nn.Module) -> int:
    """Parameters of a head."""
    return sum(p.numel() for p in head.parameters())


def held_answers(bench: Workbench, net: Network, held: NDArray[np.int64], point: int) -> NDArray[Any]:
    """Compact answers of a body that moved above ``point``, in the precision of serving."""
    serving = in_precision(net.eval(), bench.precision)
    return answers(bench, serving, outputs_of(bench, serving, point), held)


def first_head(bench: Workbench, train: NDArray[np.int64], passes: float, job: Job, *, share: float) -> Any:
    """The head that a course with the body begins with: trained alone for so many passes within this share of the job's time, or (0)
    fresh. A refit on all rows begins with the head of the first split, which has learned from most of them."""
    if passes <= 0:
        return fresh(bench, train, job.seed)
    if len(bench.hint_rows) and len(train) == len(bench.inputs):
        train, job = bench.hint_rows, replace(job, seed=0)
    with job.part("head", share=share) as pace:
        return trained(bench, train, {"epochs": passes, "most": passes}, job, pace)[0]


def first_head_seconds(bench: Workbench, train: NDArray[np.int64], passes: float) -> float:
    """Predicted seconds of ``first_head`` where no rung before has trained it."""
    if passes <= 0 or _known(bench, train, passes, 0) in bench.probes:
        return 0.0
    return len(train) * (passes * seconds_per_row(bench) + bench.mean_length * bench.forward_seconds())


def body_epochs(task: Any, n_train: int) -> float:
    """Passes over the training rows for a body and its head together."""
    own = getattr(task, "epochs", None)
    return float(own(n_train)) if own is not None else float(np.clip(BODY_STEPS * ROWS / max(1, n_train), 4, 30))
