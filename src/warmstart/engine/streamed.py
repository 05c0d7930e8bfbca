"""From options to learners: supervised objectives on images, sound and texts, contrastive ones on images and texts, by the dial."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from warmstart.core.errors import BadOption, InputError
from warmstart.engine import image_stream, passes, sound_stream, sources, text_stream
from warmstart.engine.augment import Augmentation
from warmstart.engine.classes import Classes
from warmstart.engine.image_stream import ImageStream
from warmstart.engine.learner import Setting
from warmstart.engine.passes import AnyLearner
from warmstart.engine.sound_stream import SoundStream
from warmstart.engine.text_stream import TextStream
from warmstart.engine.views import Views

AUGMENTATIONS = {
    "none": Augmentation(crop="none", flip=0.0),
    "light": Augmentation(),
    "strong": Augmentation(jitter=0.5, cutout=0.5),
}
CONTRASTED = Augmentation(crop="resized", jitter=0.5, grey=0.2)
"""What Chen et al. (2020, appendix B.9) do to CIFAR-10: no blur."""
BLUR_FROM = 64
"""Pixels from which contrasted views are blurred too."""

CLASS_PASSES = {"tiny": 12, "small": 30, "base": 60}
VIEW_PASSES = {"tiny": 30, "small": 60, "base": 100}
TEXT_PASSES = {"tiny": 1, "small": 1, "base": 1}
LR = {"adamw": 3e-3, "sgd": 0.1}


def supervised(options: Any, setting: Setting) -> Classes:
    """The learner of the objective ``supervised``.

    Raises:
        InputError: The data, their labels, or an option is wrong.
        BudgetTooSmall: Nothing useful fits into the time.
    """
    if not 0 <= options.mixup <= 1 or not 0 <= options.smoothing < 1:
        raise BadOption(
            f"mixup = {options.mixup}, smoothing = {options.smoothing}", "mixup from 0 to 1, smoothing from 0 to below 1", "correct them"
        )
    own = {"smoothing": options.smoothing, "mixup": options.mixup}
    modality = _modality(setting)
    if modality != "image" and options.mixup:
        raise BadOption(f"mixup = {options.mixup} for {modality}", "0: only images are mixed", "leave it out")
    if modality == "audio":
        return _sounds(options, setting, own)
    if modality != "image":
        lr = options.lr or (1e-3 if setting.start is None else 5e-5)
        return _texts(options, setting, Classes, {**own, "dropout": None, "lr": lr}, batch=32, labelled=True, by_size=CLASS_PASSES)
    return _images(options, setting, Classes, own, AUGMENTATIONS[options.augment], batch=128, by_size=CLASS_PASSES, flip=options.flip)


def contrastive(options: Any, setting: Setting) -> Views:
    """The learner of the objective ``contrastive``.

    Raises:
        InputError: The data or an option is wrong.
        BudgetTooSmall: Nothing useful fits into the time.
    """
    for name in ("temperature", "features", "crop"):
        if (value := getattr(options, name)) is not None and (value <= 0 or (name == "crop" and value > 1)):
            raise BadOption(f"{name} = {value}", "more than 0 (crop: up to 1)", "correct it")
    modality = _modality(setting)
    if modality == "audio":
        raise BadOption(f"contrastive on sound ({setting.data})", "images or text", "use --objective wav2vec or supervised")
    if modality != "image":
        dropout = 0.1 if options.dropout is None and setting.start is None else options.dropout
        lr = options.lr or (1e-3 if setting.start is None else 3e-5)
        own = {"temperature": options.temperature or 0.05, "features": 0, "dropout": dropout, "lr": lr}
        return _texts(options, setting, Views, own, batch=64, labelled=False, by_size=TEXT_PASSES)
    own = {"temperature": options.temperature or 0.5, "features": options.features}
    chosen = dataclasses.replace(CONTRASTED, smallest=options.crop)
    return _images(options, setting, Views, own, chosen, batch=256, by_size=VIEW_PASSES, flip=None)


def _modality(setting: Setting) -> str:
    """What the data are: image, audio, or whatever is read as text."""
    if "modality" in setting.settings:
        return str(setting.settings["modality"])
    data = setting.data
    if isinstance(data, Mapping) and isinstance(data.get("image"), (np.ndarray, Tensor)):
        return "image"
    if isinstance(data, (np.ndarray, Tensor)) or (isinstance(data, (str, Path)) and Path(data).suffix == ".npy"):
        return "image"
    try:
        return sources.detect(data, setting.column, skip_bad=True)[0]
    except InputError:  # plain text is no table; whoever reads it next says what is wrong
        return "text"


def _images(
    options: Any,
    setting: Setting,
    kind: Callable[[Any], AnyLearner],
    own: Mapping[str, Any],
    augmentation: Augmentation,
    *,
    batch: int,
    by_size: Mapping[str, int],
    flip: float | None,
) -> AnyLearner:
    images = image_stream.read(options, setting, labelled=kind is Classes)
    if setting.settings:
        return kind(ImageStream(setting, images, setting.settings))
    batch = min(options.batch or batch, len(images.train))
    chance = flip if flip is not None else augmentation.flip if images.shape[0] == 3 else 0.0  # digits and letters have no mirror image
    blur = 0.5 if kind is Views and min(images.shape[1:]) >= BLUR_FROM else 0.0
    lr = options.lr or LR[options.optimizer] * (1.0 if setting.start is None else 0.1)
    chosen = dataclasses.asdict(dataclasses.replace(augmentation, flip=chance, blur=blur))

    def build(size: str, steps: int, each: float) -> AnyLearner:
        settings = image_stream.decide(options, setting, images, size) | {"augment": chosen, "lr": lr, **own}
        return kind(ImageStream(setting, images, settings | _common(options, batch, steps, each)))

    return passes.choose(setting, build, per_pass=len(images.train) // batch, passes=by_size, steps=options.steps)


def _sounds(options: Any, setting: Setting, own: Mapping[str, Any]) -> Classes:
    if options.family not in ("convnet", "soundnet"):
        raise BadOption(f"family = {options.family!r} for sound", "soundnet", "leave it out")
    heard = sound_stream.read(setting)
    if setting.settings:
        return Classes(SoundStream(setting, heard, setting.settings))
    batch = min(options.batch or 64, len(heard.train))
    lr = options.lr or LR[options.optimizer] * (1.0 if setting.start is None else 0.1)
    chosen = dataclasses.asdict(sound_stream.views(options.augment))

    def build(size: str, steps: int, each: float) -> Classes:
        settings = sound_stream.decide(options, setting, heard, size) | {"augment": chosen, "lr": lr, **own}
        return Classes(SoundStream(setting, heard, settings | _common(options, batch, steps, each)))

    return passes.choose(setting, build, per_pass=len(heard.train) // batch, passes=CLASS_PASSES, steps=options.steps)


def _texts(
    options: Any,
    setting: Setting,
    kind: Callable[[Any], AnyLearner],
    own: Mapping[str, Any],
    *,
    batch: int,
    labelled: bool,
    by_size: Mapping[str, int],
) -> AnyLearner:
    rows = text_stream.read(setting, labelled=labelled)
    if setting.settings:
        return kind(TextStream(setting, rows, setting.settings))
    batch = min(options.batch or batch, len(rows.train))

    def build(size: str, steps: int, each: float) -> AnyLearner:
        settings = text_stream.decide(options, setting, size) | dict(own)
        return kind(TextStream(setting, rows, settings | _common(options, batch, steps, each)))

    return passes.choose(setting, build, per_pass=len(rows.train) // batch, passes=by_size, steps=options.steps)


def _common(options: Any, batch: int, steps: int, each: float) -> dict[str, Any]:
    return {
        "batch": batch,
        "optimizer": options.optimizer,
        "weight_decay": options.weight_decay,
        "warmup": options.warmup,
        "steps": steps,
        "seconds_per_step": each,
    }
