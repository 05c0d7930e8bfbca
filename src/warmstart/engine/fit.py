"""The one training loop: fused AdamW, warm-up and linear decay, bfloat16 where the processor has it, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from warmstart.core.errors import DamagedModel, TrainingFailed
from warmstart.engine import balance, batches, store
from warmstart.engine.clock import Pace
from warmstart.engine.master_weights import Group, Optimizer

CHECKPOINT_SECONDS = 20.0
"""A killed run loses at most about this much training."""


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions: ``epochs`` passes in batches of at most ``tokens`` padded tokens and ``rows`` examples.

    The learning rate rises linearly over the first ``warmup`` of the steps and falls linearly to zero over the others. A run that is
    quicker than it was planned to be may go on to ``most`` passes.
    """

    epochs: float
    most: float = 0.0
    tokens: int = batches.TOKENS
    rows: int = 32
    warmup: float = 0.06
    clip: float = 1.0


@dataclass(frozen=True)
class Trained:
    """What a training run did: ``steps`` in all, wall ``seconds`` of those from step ``first`` on (where it was resumed), and the mean
    ``loss`` of the last tenth."""

    steps: int
    first: int
    seconds: float
    loss: float


def order(
    lengths: NDArray[np.int64], schedule: Schedule, seed: Sequence[int], *, drawn: NDArray[np.float32] | None = None
) -> list[NDArray[np.int64]]:
    """The batches of the longest run, from the seed alone, so that a resumed run needs only its step number.

    With ``drawn`` (N,), 1 on average, a pass has each row so often on average.
    """
    passes = max(schedule.epochs, schedule.most)
    epochs = math.ceil(passes)
    stream: list[NDArray[np.int64]] = []
    for epoch in range(epochs):
        random = np.random.default_rng([*seed, epoch])
        chosen = np.arange(len(lengths)) if drawn is None else balance.repeated(drawn, random)
        found = batches.shuffled(lengths[chosen], tokens=schedule.tokens, rows=schedule.rows, random=random)
        stream += [chosen[batch] for batch in found]
    return stream[: max(1, round(len(stream) * passes / epochs))]


def train(
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    groups: Sequence[Group],
    *,
    stream: Sequence[NDArray[np.int64]],
    schedule: Schedule,
    seed: int,
    pace: Pace,
    copies: Sequence[nn.Parameter] | None = None,
    tables: Collection[nn.Parameter] = (),
    checkpoint: Path | None = None,
    progress: str | None = None,
) -> Trained:
    """Minimise ``loss_of(batch positions)`` over the batches of ``stream``.

    The parameters change in place. ``copies``, in their order, are what the loss is computed with where that is in a lower precision:
    gradients come from them, and they follow the parameters (master weights, Micikevicius et al. 2018). ``tables`` are parameters
    whose gradients come sparse. With ``checkpoint`` a file is written now and then, from which the same call goes on to the same bits
    after a kill; it is removed at the end. ``progress`` names the bar that is drawn on a terminal (None: no bar).

    Raises:
        TrainingFailed: The loss is not finite.
    """
    optimizer = Optimizer(groups, copies=copies, tables=tables, clip=schedule.clip)
    with torch.random.fork_rng(devices=_cuda_devices(optimizer.parameters)):
        torch.manual_seed(seed)
        state = _State(0, max(1, round(len(stream) * schedule.epochs / max(schedule.epochs, schedule.most))), 0.0, [])
        if checkpoint is not None and checkpoint.exists():
            with suppress(DamagedModel):  # a damaged one only costs the steps it held
                state = _restore(store.read_tensors(checkpoint), optimizer, pace)
        first = state.step
        pace.start(first)
        began = saved = time.perf_counter()
        with tqdm(total=state.total, initial=state.step, desc=progress, unit="step", disable=_no_bar(progress), leave=False) as bar:
            while state.step < (total := pace.total(state.step, state.total, len(stream))):
                state.total = bar.total = total
                state.factor = _factor(state, schedule.warmup)
                loss = loss_of(stream[state.step])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step(state.factor)
                state.losses.append(_finite(loss, state.step))
                state.step += 1
                bar.update()
                if checkpoint is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    _save(checkpoint, optimizer, state, pace)
                    saved = time.perf_counter()
    tail = state.losses[-max(1, len(state.losses) // 10) :]
    return Trained(state.step, first, time.perf_counter() - began, float(np.mean(tail)) if tail else math.nan)


@dataclass
class _State:
    step: int
    total: int
    factor: float
    losses: list[float]


def _factor(state: _State, warmup: float) -> float:
    """Share of the base learning rate. The decay is written as a ratio to the step before, so that it stays smooth and still
    ends at zero when the total changes on the way."""
    rising = max(1, int(warmup * state.total))
    if state.step < rising:
        return (state.step + 1) / rising
    left = state.total - state.step
    return state.factor * left / (left + 1)


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingFailed(
            f"the loss is {value} at step {step + 1}", "a finite loss", "try a smaller learning rate: --set strategy.lr=..."
        )
    return value


def _save(path: Path, optimizer: Optimizer, state: _State, pace: Pace) -> None:
    tensors = optimizer.tensors()
    tensors |= {"rng": torch.get_rng_state(), "losses": torch.tensor(state.losses, dtype=torch.float64)}
    tensors["replans"] = torch.tensor(pace.replans, dtype=torch.int64).reshape(-1, 2)
    tensors["numbers"] = torch.tensor([state.step, state.total, state.factor], dtype=torch.float64)
    store.write_tensors(path, tensors)


def _restore(tensors: Mapping[str, Tensor], optimizer: Optimizer, pace: Pace) -> _State:
    optimizer.restore(tensors)
    torch.set_rng_state(tensors["rng"])
    if not pace.follow:
        pace.replans[:] = [(int(a), int(b)) for a, b in tensors["replans"].tolist()]
    step, total, factor = tensors["numbers"].tolist()
    return _State(int(step), int(total), factor, tensors["losses"].tolist())


def _cuda_devices(parameters: Iterable[nn.Parameter]) -> list[Any]:
    return sorted({p.device.index for p in parameters if p.device.type == "cuda"})


def _no_bar(progress: str | None) -> bool | None:
    """tqdm's own rule for None: a bar only on a terminal."""
    return True if progress is None else None
