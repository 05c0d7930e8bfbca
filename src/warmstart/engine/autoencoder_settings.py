"""What an autoencoder is and how long it learns: options, the dial, and what does not go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from warmstart.core.errors import BadOption
from warmstart.engine.learner import Setting
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels

DENSE = {"tiny": "256,64", "small": "512,256,64", "base": "1024,512,256,64"}
CHANNELS = {"tiny": "32,64", "small": "32,64,128", "base": "64,128,256"}
BLOCKS = {"tiny": (4, 128), "small": (6, 192), "base": (12, 384)}
"""Depth and width of the vision transformer."""
PASSES = {"tiny": 10, "small": 20, "base": 40}
"""Passes over the images where nobody says how long; a masked autoencoder, whose every view is another one, takes five times as many."""
MASKED_PASSES = 5
MOST_PASSES, MOST_STEPS = 400, 20_000
"""A budget is spent on no more passes; without one, no more steps are taken."""
LR = 1e-3


def decided(options: Any, setting: Setting, found: Pixels) -> dict[str, Any]:
    """Everything but what a budget decides."""
    size = setting.size or "tiny"
    settings = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    c, h, w = found.shape
    kind = options.architecture
    if kind == "auto":
        kind = "dense" if min(h, w) < 8 else "convolutional"
    settings |= {"architecture": kind, "lr": options.lr if options.lr is not None else LR, "step_seconds": 0.0}
    _check(options, kind, found)
    if kind == "masked":
        depth, width = BLOCKS[size]
        settings |= {"depth": options.depth or depth, "width": options.width or width, "patch": options.patch or _patch(h)}
        _check_patches(settings, h, w)
    else:
        settings["hidden"] = _numbers(options.hidden or (DENSE if kind == "dense" else CHANNELS)[size])
        if kind == "convolutional" and min(h, w) >> len(settings["hidden"]) < 1:
            raise BadOption(f"{len(settings['hidden'])} stages, each halving {h} x {w} pixels", "at least one pixel left", "give fewer")
    settings["activation"] = options.activation or ("sigmoid" if options.sparsity is not None else "relu")
    if options.loss == "auto":
        settings["loss"] = "cross_entropy" if kind == "dense" and c == 1 and _bounded(found) else "squared"
    per_pass = Order(len(found.train), options.batch, seed=0).per_pass
    passes = PASSES[size] * (MASKED_PASSES if kind == "masked" else 1)
    settings["steps"] = options.steps if options.steps is not None else min(passes * per_pass, max(MOST_STEPS, per_pass))
    return settings


def _numbers(text: str) -> list[int]:
    try:
        found = [int(n) for n in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise BadOption(f"hidden = {text!r}", "numbers with commas between, e.g. 512,256,64", "correct it")
    return found


def _bounded(found: Pixels) -> bool:
    return found.images.dtype == torch.uint8 or bool((found.images.min() >= 0) & (found.images.max() <= 1))


def _check(options: Any, kind: str, found: Pixels) -> None:
    """Raises BadOption for what does not go together."""
    for name, low, high in (
        ("noise_amount", 0, 10),
        ("sparsity_cost", 0, 1e6),
        ("contraction", 0, 1e6),
        ("masked", 0.01, 0.99),
        ("batch", 1, 1e9),
    ):
        if not low <= getattr(options, name) <= high:
            raise BadOption(f"{name} = {getattr(options, name)}", f"from {low} to {high:g}", "correct it")
    if options.sparsity is not None and (kind != "dense" or options.activation not in (None, "sigmoid")):
        raise BadOption("sparsity without a dense sigmoid code", "activities between 0 and 1", "use architecture=dense, activation=sigmoid")
    if options.sparsity is not None and not 0 < options.sparsity < 1:
        raise BadOption(f"sparsity = {options.sparsity}", "between 0 and 1", "for example 0.05")
    if kind == "masked" and (options.noise != "none" or options.contraction):
        raise BadOption("noise or contraction in a masked autoencoder", "neither: what is hidden is its noise", "leave it out")
    if options.loss == "cross_entropy" and not _bounded(found):
        raise BadOption("cross entropy of numbers below 0 or above 1", "numbers from 0 to 1", "use loss=squared, or scale the data")


def _patch(side: int) -> int:
    """The largest that leaves seven patches or more in a row: 4 pixels of 28 or 32, 8 of 64."""
    return max((n for n in range(1, side // 7 + 1) if side % n == 0), default=1)


def _check_patches(settings: Mapping[str, Any], h: int, w: int) -> None:
    if h != w or h % settings["patch"]:
        raise BadOption(
            f"patches of {settings['patch']} pixels in images of {h} x {w}", "square images of whole patches", "set side and patch"
        )
    if settings["width"] % 32:
        raise BadOption(f"width = {settings['width']}", "a multiple of 32, the features of a head", "correct it")
