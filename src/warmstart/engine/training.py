"""Training body and head together on rows of a workbench, from a cut where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.engine import answers, batch_norms, batches, cut, fit, master_weights, network, structured
from warmstart.engine.clock import Pace
from warmstart.engine.job import Job
from warmstart.engine.network import Network
from warmstart.engine.predictor import in_precision
from warmstart.engine.workbench import Workbench

TRAINING_COST, CONVOLUTIONAL_COST = 4.0, 2.5
"""Forward passes of the frozen body that one training step costs, before it was measured: one forward, two for the gradients, and
the optimiser and the casts. Less of a convolutional body, whose frozen passes come in small batches and whose optimiser has little to do
(float32: ResNet-20 2.1 to 2.8, MobileNetV2 2.7, the last two thirds of it 1.6)."""


def descend(
    bench: Workbench,
    net: Network,
    groups: Sequence[master_weights.Group],
    loss_with: Callable[[Network], Callable[[NDArray[np.int64]], Tensor]],
    *,
    stream: Sequence[NDArray[np.int64]],
    schedule: fit.Schedule,
    job: Job,
    pace: Pace,
    checkpoint: Path | None = None,
    by_batch: bool = False,
) -> fit.Trained:
    """Train the parameters in ``groups``; everything else in the network stays as it is.

    The loss is computed with a copy of the network in the precision it will serve in; the parameters themselves stay in float32.
    On a CPU that is a third quicker than autocast, which casts every activation to and fro. The network stays in evaluation mode:
    in the few passes that adapting takes, dropout costs time and accuracy.

    Args:
        loss_with: From a network to its loss function on positions.
        by_batch: Trained batch norms learn by the statistics of each batch, and keep those of the training rows in the end.
    """
    working = in_precision(net, bench.precision)
    parameters = [p for g in groups for p in g.parameters]
    trained, copies = parameters, None
    if working is not net:
        plain_attention(working.body)
        names = {id(p): name for name, p in net.named_parameters()}
        twins = dict(working.named_parameters())
        trained = copies = [twins[names[id(p)]] for p in parameters]
    norms = batch_norms.among(working.body, trained) if by_batch else []
    loss_of = loss_with(working)
    with (
        network.only_trainable(working, trained),
        master_weights.row_gradients(working.body, trained) as by_row,
        batch_norms.by_batch(norms),
    ):
        sparse = {id(p) for p in by_row}
        done = fit.train(
            loss_of,
            groups,
            stream=stream,
            schedule=schedule,
            seed=job.seed,
            pace=pace,
            copies=copies,
            tables=[p for p, source in zip(parameters, trained, strict=True) if id(source) in sparse],
            checkpoint=checkpoint,
            progress=job.progress,
        )
    if norms:
        batch_norms.estimate(norms, loss_of, stream[: done.steps])
        batch_norms.hand_over(norms, batch_norms.among(net.body, parameters))
    return done


def settle_norms(bench: Workbench, net: Network, rows: NDArray[np.int64]) -> None:
    """Let the batch norms of a body whose weights were changed otherwise keep the statistics of these rows."""
    logits = logits_of(bench, net, 0)
    rows = np.random.default_rng(bench.seed).permutation(rows)  # which may lie in the order of their classes
    stream = [part for part, _ in batches.uniform(bench.lengths[rows], tokens=batches.TOKENS) if len(part) > 1]
    batch_norms.estimate(batch_norms.among(net.body), lambda positions: logits(rows[positions]), stream)


def plain_attention(body: nn.Module) -> None:
    """Let a body that is trained on a CPU compute attention by plain matrix products.

    The fused kernel's backward pass takes 30 ms for 36 sentences of 28 tokens in bfloat16 where the plain one takes 8 (one thread,
    AVX-512), a quarter of a whole training step.
    """
    choose = getattr(body, "set_attn_implementation", None)
    if choose is not None and next(body.parameters()).device.type == "cpu":
        with suppress(ValueError):  # an architecture without a plain form keeps what it has
            choose("eager")


def logits_of(bench: Workbench, net: Network, point: int) -> Callable[..., Tensor]:
    """A function from rows of the bench to logits, or to raw outputs of a structured head, which starts from the stored states at
    ``point`` (0: from the raw rows)."""
    if net.structured:
        return structured.outputs_of(bench, net, point)
    if point == 0:
        return lambda rows, length=0: net(bench.batch(rows, length=length))
    assert net.trunk is not None  # noqa: S101 - a cut was proved, so there is a trunk
    tail = cut.Tail(net.body, net.trunk, point)

    def from_cut(rows: NDArray[np.int64], length: int = 0) -> Tensor:
        batch = bench.batch(bench.variants.origin(rows), length=length)  # of the batch itself the tail uses no more than its shape
        hidden = bench.hidden(rows, point, batch)
        return net.from_cut(tail, hidden, bench.lower(rows, point), batch)

    return from_cut


def run(
    bench: Workbench,
    net: Network,
    *,
    rows: NDArray[np.int64],
    groups: Sequence[master_weights.Group],
    point: int,
    schedule: fit.Schedule,
    smoothing: float,
    job: Job,
    by_batch: bool = False,
) -> fit.Trained:
    """Train the parameters in ``groups`` on these rows; everything else in the network stays as it is.

    Raises:
        TrainingFailed: The loss is not finite.
    """
    lengths = bench.lengths[rows]
    weights = bench.balance.of(rows)
    stream = fit.order(lengths, schedule, (bench.seed, job.seed), drawn=weights if bench.balance.drawn else None)
    if by_batch:  # one row has no spread
        stream = [batch for batch in stream if len(batch) > 1] or stream
    weighing = None if weights is None or bench.balance.drawn else torch.from_numpy(weights).to(bench.device)

    def loss_with(working: Network) -> Callable[[NDArray[np.int64]], Tensor]:
        logits = logits_of(bench, working, point)

        def loss_of(positions: NDArray[np.int64]) -> Tensor:
            bench.check_time()
            targets, found = bench.targets[rows[positions]], logits(rows[positions]).float()
            if working.structured:
                return answers.loss(bench.task, working.head, found, list(targets), smoothing)
            counting = {} if weighing is None else {"weights": weighing[positions]}
            return bench.task.loss(found, torch.from_numpy(targets).to(bench.device), smoothing, **counting)

        return loss_of

    trained = descend(
        bench,
        net,
        groups,
        loss_with,
        stream=stream,
        schedule=schedule,
        job=job,
        pace=job.pace,
        checkpoint=job.checkpoint,
        by_batch=by_batch,
    )
    tokens = sum(int(lengths[b].sum()) for b in stream[trained.first : trained.steps])
    share = 1 - point / max(1, bench.backbone.n_blocks)
    if trained.steps - trained.first >= 10:
        bench.measured["training"] = trained.seconds / (bench.forward_seconds() * share * tokens)
    return trained


def seconds(bench: Workbench, *, n_rows: int, epochs: float, point: int, passes: float | None = None) -> float:
    """Predicted seconds of training on ``n_rows`` for so many epochs, from the measured rate of the frozen body; or of so many ``passes``
    of it instead of what a training step costs."""
    share = 1 - point / max(1, bench.backbone.n_blocks)
    tokens = n_rows * float(bench.lengths.mean()) * epochs
    made = n_rows * epochs * bench.view_seconds() * bench.views / (1 + bench.views) if point == 0 else 0.0
    usual = CONVOLUTIONAL_COST if bench.backbone.convolutional else TRAINING_COST
    each = bench.measured.get("training", usual) if passes is None else passes
    return made + tokens * bench.forward_seconds() * share * each


def prefix_seconds(bench: Workbench, rows: NDArray[np.int64], point: int | None) -> float:
    """Predicted seconds of bringing the states of these rows at ``point`` (None: everywhere) into the store."""
    share = 1.0 if point is None else point / max(1, bench.backbone.n_blocks)
    if not len(rows):
        return 0.0
    made = float((rows >= len(bench.inputs)).mean()) * bench.view_seconds()
    return bench.lacking(rows, point) * (made + float(bench.lengths[rows].mean()) * bench.forward_seconds() * share)


@torch.inference_mode()
def predict(bench: Workbench, net: Network, rows: NDArray[np.int64], *, point: int) -> NDArray[np.float32]:
    """Logits (n, C), or compact answers, of rows of the bench in the precision of serving."""
    if net.structured:
        return structured.held_answers(bench, net, rows, point)
    serving = in_precision(net.eval(), bench.precision)
    logits = logits_of(bench, serving, point)
    out = np.zeros((len(rows), bench.n_classes), dtype=np.float32)
    for part, length in batches.frozen(bench.lengths[rows], net.body):
        bench.check_time()
        out[part] = logits(rows[part], length=length).float().cpu().numpy()
    return out


@torch.inference_mode()
def pooled(bench: Workbench, net: Network, rows: NDArray[np.int64], *, point: int) -> Tensor:
    """Pooled states (n, L + 1, D) of a body that has moved above ``point``; frozen states below it come from the store."""
    serving = in_precision(net.eval(), bench.precision)
    assert serving.trunk is not None or point == 0  # noqa: S101 - a cut was proved, so there is a trunk
    parts: list[Tensor] = []
    order: list[NDArray[np.int64]] = []
    tail = None if point == 0 or serving.trunk is None else cut.Tail(serving.body, serving.trunk, point)
    for part, length in batches.frozen(bench.lengths[rows], net.body):
        bench.check_time()
        order.append(part)
        chosen = rows[part]
        batch = bench.batch(chosen if tail is None else bench.variants.origin(chosen), length=length)
        if tail is None:
            states = network.pooled_states(serving.body, serving.trunk, batch)
        else:
            states = serving.states_from_cut(tail, bench.hidden(chosen, point, batch), batch)
            states = torch.cat([bench.lower(chosen, point), network.widened(states[:, point:], bench.width)], 1)
        parts.append(states.cpu())
    found = torch.cat(parts)
    back = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable"))
    return found[back]
