"""What the dial of pre-training needs to know of this machine: how long a step takes, how fast it multiplies matrices."""

from __future__ import annotations

import statistics
import time

import torch

from warmstart.core.protocols import Learner
from warmstart.engine import optimizers
from warmstart.engine.learner import Setting
from warmstart.engine.working import Working

MEASURING = 0.03
"""Of the time for training, measuring the speed takes about this much at most: where steps are slow, fewer of them must do."""


def seconds_per_step(learner: Learner, setting: Setting, *, steps: int = 3, phase: int = 0) -> float:
    """Median wall seconds of a real training step, optimiser and copy of the weights included; one more is taken before, which counts only
    where there is no time for others.

    The weights are put back as they were, and torch's random state is left alone.
    """
    module = learner.module
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    taken = []
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        working = Working(module, setting.precision)
        moved = optimizers.build([group for group in learner.groups(phase) if group.parameters])
        for step in range(1 + steps):
            began = time.perf_counter()
            learner.learn(working.copy, phase, learner.batch(phase, step))
            working.gather()
            for optimizer in moved:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            working.follow()
            if setting.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
            if setting.seconds is not None and sum(taken) > MEASURING * setting.seconds:
                break
    module.load_state_dict(before)
    for parameter in module.parameters():
        parameter.grad = None
    return statistics.median(taken[1:] or taken)


def matmul_flops(device: torch.device, dtype: torch.dtype, *, size: int = 1024) -> float:
    """Floating-point operations a second of the fastest of a few products of square matrices."""
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
