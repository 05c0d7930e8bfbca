"""How large a body and how many steps: the dial of objectives that see the same examples many times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from warmstart.core.errors import BudgetTooSmall
from warmstart.core.protocols import Learner
from warmstart.engine import dial, loop
from warmstart.engine.learner import Setting
from warmstart.engine.working import Working

AnyLearner = TypeVar("AnyLearner", bound=Learner)

ENOUGH = 10
"""A size is worth having where the time lets it see the data so often; of those that do, the largest is taken."""
MOST = 100
"""Passes over the data at most, however much time there is."""
FEWEST_STEPS = 5


def choose(
    setting: Setting, build: Callable[[str, int, float], AnyLearner], *, per_pass: int, passes: Mapping[str, int], steps: int | None
) -> AnyLearner:
    """The learner that the dial asks for, timed on the spot.

    A size fixes the shape, and without a budget also the passes over the data; a budget fixes the steps, and without a size also the
    shape: the largest that sees the data ``ENOUGH`` times. Where steps turn out quicker than they were timed, a budget buys more of them.

    Args:
        setting: Size, seconds, device.
        build: Makes the learner of a size with so many steps of so many seconds each (0.0: not known yet).
        per_pass: Steps of one pass over the data.
        passes: By size, how often the data are seen where there is no budget.
        steps: As asked for; None: by the dial.

    Raises:
        BudgetTooSmall: Not even a few steps of the smallest fit.
    """
    sizes: list[str] = [setting.size] if setting.size else ["base", "small", "tiny"] if setting.seconds is not None else ["tiny"]
    for size in sizes:
        count = steps if steps is not None else passes[size] * per_pass
        learner = build(size, count, 0.0)
        if count == 0:
            break
        each, check = _seconds(learner, setting)
        if setting.seconds is None:
            return build(size, count, each)
        fit = int((setting.seconds - (loop.VALIDATIONS + 2) * check) / each)
        if fit < ENOUGH * per_pass and size != sizes[-1]:
            continue
        if fit < FEWEST_STEPS:
            raise BudgetTooSmall(
                f"{setting.seconds:.0f} s for training, of which a step takes {each:.2f} s and a look at held-out data {check:.2f} s",
                f"at least {(FEWEST_STEPS * each + (loop.VALIDATIONS + 2) * check):.0f} s",
                "give more time, a smaller size, or a smaller batch",
            )
        if steps is not None:
            return build(size, count, each)
        learner = build(size, min(fit, MOST * per_pass), each)
        learner.settings["most_steps"] = MOST * per_pass
        return learner
    return learner


def _seconds(learner: Learner, setting: Setting) -> tuple[float, float]:
    """Of one step, and of one validation."""
    each = dial.seconds_per_step(learner, setting)
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []), torch.no_grad():
        working = Working(learner.module, setting.precision).copy.eval()
        began = time.perf_counter()
        learner.validate(working, 0)
        taken = time.perf_counter() - began
    learner.module.train()
    return each, taken
