"""What a deep belief network is and how long each phase lasts: options and the dial."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from warmstart.core.errors import BadOption, BudgetTooSmall
from warmstart.engine.learner import Setting
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels

HIDDEN = {"tiny": "256", "small": "500,250", "base": "1000,500,250"}
PASSES = {"tiny": 10, "small": 20, "base": 40}
"""Passes over the images in each phase, where nobody says how long."""
MOST_PASSES = 200
"""A budget is spent on no more."""
MOST_STEPS = 20_000
"""Of a phase, where no budget is given: many images need fewer passes."""


def decided(options: Any, setting: Setting, found: Pixels) -> dict[str, Any]:
    """Everything but what a budget decides."""
    size = setting.size or "tiny"
    hidden = options.hidden or HIDDEN[size]
    try:
        layers = [int(n) for n in str(hidden).split(",")]
    except ValueError:
        layers = []
    if not layers or min(layers) < 1:
        raise BadOption(f"hidden = {hidden!r}", "numbers of units with commas between, e.g. 500,250", "correct it")
    for name, low in (("k", 1), ("batch", 1), ("sweep", 1), ("lr", 0), ("momentum", 0), ("sparsity_cost", 0)):
        if getattr(options, name) is not None and getattr(options, name) < low:
            raise BadOption(f"{name} = {getattr(options, name)}", f"at least {low}", "correct it")
    bounded = found.images.dtype == torch.uint8 or bool((found.images.min() >= 0) & (found.images.max() <= 1))
    visible = options.visible
    if visible == "auto":
        visible = "bernoulli" if bounded and found.shape[0] == 1 else "gaussian"
    if visible == "bernoulli" and not bounded:
        raise BadOption("bernoulli units for numbers below 0 or above 1", "numbers from 0 to 1", "use visible=gaussian, or scale the data")
    unroll = len(layers) > 1 if options.unroll is None else options.unroll
    per_pass = Order(len(found.train), options.batch, seed=0).per_pass
    steps = options.steps if options.steps is not None else min(PASSES[size] * per_pass, max(MOST_STEPS, per_pass))
    finetune = (options.finetune_steps if options.finetune_steps is not None else steps) if unroll else 0
    settings = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    settings |= {"layers": layers, "visible": visible, "unroll": unroll, "steps": steps, "finetune_steps": finetune}
    settings["step_seconds"] = [0.0] * (len(layers) + unroll)
    return settings


def spend(settings: dict[str, Any], options: Any, seconds: float, per_pass: int) -> None:
    """As many passes as the time allows: the same number of steps in every phase that has none of its own."""
    each = settings["step_seconds"]
    free = [options.steps is None] * len(settings["layers"]) + [options.finetune_steps is None] * bool(settings["unroll"])
    fixed = sum(
        s * (settings["finetune_steps"] if i >= len(settings["layers"]) else settings["steps"]) for i, s in enumerate(each) if not free[i]
    )
    if not any(free):
        return
    steps = int((seconds - fixed) / max(sum(s for s, is_free in zip(each, free, strict=True) if is_free), 1e-9))
    if steps < 1:
        raise BudgetTooSmall(
            f"{seconds:.0f} s for training", f"at least {fixed + sum(each):.0f} s", "give a larger --budget or a smaller --size"
        )
    steps = min(steps, MOST_PASSES * per_pass)
    steps -= steps % settings["sweep"] if steps > settings["sweep"] else 0
    if options.steps is None:
        settings["steps"] = steps
    if settings["unroll"] and options.finetune_steps is None:
        settings["finetune_steps"] = steps
