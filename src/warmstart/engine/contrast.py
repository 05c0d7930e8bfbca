"""A short supervised contrastive phase: rows of one class are drawn together before a head is fitted.

With eight labels a class a frozen probe is often too weak and cross entropy has too little to hold on to; comparing all rows of
a batch with each other gives every label many partners (Khosla et al. 2020; SetFit, Tunstall et al. 2022, does it pair by pair).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from warmstart.engine import cut, fit, master_weights, network, training
from warmstart.engine.job import Job
from warmstart.engine.network import Network
from warmstart.engine.workbench import Workbench

TEMPERATURE = 0.1
ROWS = 64
TOKENS, MAPS = 8192, 1024
"""Padded tokens that go through a body at once, and through one of convolutions, whose maps are larger: sentences together, photographs
in parts, as a second forward pass costs a third more time where memory does not."""
HEAD = 0.5
"""Seconds that fitting a head takes afterwards, about; before it each row goes through the body."""


def loss(embedded: Tensor, targets: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, equation 2) of ``embedded (B, D)`` with classes ``targets (B,)``.

    Rows without a partner of their class take no part; a batch without any pair has loss 0.
    """
    unit = functional.normalize(embedded, dim=1)
    alone = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(alone, -torch.inf)  # (B, B)
    partners = (targets[:, None] == targets[None, :]) & ~alone
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    drawn = -log_share.masked_fill(~partners, 0.0).sum(1) / partners.sum(1).clamp_min(1)
    return drawn.sum() / partners.any(1).sum().clamp_min(1)


def parts_of(bench: Workbench, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """These rows as they go through a body that learns: together, or in parts of so many tokens."""
    tokens = float(bench.lengths[rows].max()) * len(rows)
    return np.array_split(rows, min(len(rows), math.ceil(tokens / (MAPS if bench.backbone.convolutional else TOKENS))))


def in_parts(
    embedded: Callable[[NDArray[np.int64]], Tensor], parts: Sequence[NDArray[np.int64]], loss_of: Callable[[Tensor], Tensor]
) -> Tensor:
    """A loss of all rows together, whose ``backward`` gives the parameters their gradient, with the activations of one part in memory.

    Each part is embedded twice: without a graph for the loss and its gradient by the embeddings, then with one for the gradient by the
    parameters (gradient caching, Gao et al. 2021, arXiv:2101.06983). The body must give the same both times.
    """
    if len(parts) == 1 or not torch.is_grad_enabled():
        return loss_of(torch.cat([embedded(part) for part in parts]))
    with torch.no_grad():
        states = [embedded(part) for part in parts]
    leaf = torch.cat(states).requires_grad_()
    found = loss_of(leaf)
    found.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None  # noqa: S101 - narrows
    gradients = torch.split(leaf.grad, [len(part) for part in parts])
    for part, gradient in zip(parts[:-1], gradients[:-1], strict=True):
        (embedded(part) * gradient).sum().backward()  # type: ignore[no-untyped-call]
    last = (embedded(parts[-1]) * gradients[-1]).sum()
    return found.detach() + last - last.detach()


def batches(targets: NDArray[np.int64], *, steps: int, rows: int, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Positions for each step: classes drawn evenly and in pairs, so that every row has a partner where its class has two."""
    by_class = [np.flatnonzero(targets == c) for c in np.unique(targets)]
    each = max(2, rows // len(by_class))
    stream = []
    for _ in range(steps):
        chosen = [by_class[i] for i in random.permutation(len(by_class))[: max(1, rows // each)]]
        stream.append(np.concatenate([random.permutation(members)[:each] for members in chosen]))
    return stream


def run(
    bench: Workbench,
    net: Network,
    *,
    rows: NDArray[np.int64],
    groups: Sequence[master_weights.Group],
    point: int,
    steps: int,
    at_once: int = ROWS,
    job: Job,
    by_batch: bool = False,
) -> fit.Trained:
    """Move the parameters in ``groups`` by so many contrastive steps on the pooled final state of these rows, ``at_once`` of them a step;
    by fewer steps where they turn out so slow that a head could not be fitted any more."""
    targets = bench.targets[rows]
    stream = batches(targets, steps=steps, rows=at_once, random=np.random.default_rng((bench.seed, job.seed, 1)))

    def loss_with(working: Network) -> Callable[[NDArray[np.int64]], Tensor]:
        tail = cut.Tail(working.body, working.trunk, point) if point and working.trunk is not None else None

        def embedded(chosen: NDArray[np.int64]) -> Tensor:
            bench.check_time()
            batch = bench.batch(chosen if tail is None else bench.variants.origin(chosen))
            last = network.last_state(cut.run(working.body, batch) if tail is None else tail(bench.hidden(chosen, point, batch), batch))
            return network.masked_mean(last, network.state_mask(working.body, last, batch))

        def loss_of(positions: NDArray[np.int64]) -> Tensor:
            named = torch.from_numpy(targets[positions]).to(bench.device)
            return in_parts(embedded, parts_of(bench, rows[positions]), lambda states: loss(states, named))

        return loss_of

    with job.part("contrast") as pace:
        if not pace.follow:
            share = 1 - point / max(1, bench.backbone.n_blocks)
            pace.after = HEAD + len(rows) * bench.mean_length * bench.forward_seconds() * share
        return training.descend(
            bench, net, groups, loss_with, stream=stream, schedule=fit.Schedule(epochs=1), job=job, pace=pace, by_batch=by_batch
        )
