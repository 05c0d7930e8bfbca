"""From a setting to the learner of ``wav2vec``: data read, size and steps decided by the dial, body made or opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, BudgetTooSmall, ColumnNotFound, DataError, nearest
from warmstart.engine import dial, extraction, sound_corpus, sources, store, wav2vec
from warmstart.engine.learner import Setting
from warmstart.engine.sound_corpus import SoundCorpus
from warmstart.engine.wav2vec_learner import Wav2VecLearner, fresh_body

SIZES = {"tiny": (128, 4), "small": (256, 6), "base": (512, 8)}
"""Width and depth."""
PASSES, MOST_PASSES, ENOUGH_PASSES = 40, 200, 30
"""Over the data: without a budget; at most with one; and so many must fit into a budget before a larger size is taken."""
MOST_STEPS, FEWEST_STEPS = 20_000, 20
LR, LR_WIDTH = 1e-3, 128
BATCH_SECONDS, STEPS_IN_A_PASS = 30.0, 4
MOST_HELD, BY_RECORDING = 500, 8
"""At most so many recordings are held out; with fewer than so many in all, windows are."""
SPLIT = 4


@dataclasses.dataclass(frozen=True, eq=False)
class _Data:
    """Sound to learn from and to measure on, and which windows of each."""

    train: SoundCorpus
    held: SoundCorpus
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]


def prepare(options: Any, setting: Setting) -> Wav2VecLearner:
    """The learner that options, dial and data come to; with ``setting.settings`` the one that an earlier run decided on.

    Raises:
        InputError: The data, the body to go on from, or an option is wrong.
        BudgetTooSmall: Not even a few steps fit into the time.
    """
    values, folder, rows, source = _recordings(setting.data, setting)
    given_rate = setting.modality_options.get("rate")
    given_rate = int(given_rate) if given_rate is not None else None
    settings = dict(setting.settings) or _settings(options, setting, values, folder, given_rate)
    how: dict[str, Any] = {"rate": settings["rate"], "window": settings["window"], "given_rate": given_rate, "skip_bad": setting.skip_bad}
    train = sound_corpus.build(values, place=setting.folder, folder=folder, source=source, rows=rows, **how)
    if setting.validation is not None:
        others, folder, rows, source = _recordings(setting.validation, setting)
        held = sound_corpus.build(others, place=setting.folder / "validation", folder=folder, source=source, rows=rows, **how)
        data = _Data(train, held, (np.arange(len(train.lengths)), np.arange(len(held.lengths))))
    else:
        data = _Data(train, train, _parts(train, float(settings["held"]), setting.seed, source))
    return _learner(setting, settings, data) if setting.settings else _decided(setting, settings, data)


def _settings(options: Any, setting: Setting, values: list[Any], folder: Path, given_rate: int | None) -> dict[str, Any]:
    """What the options say, with a rate; what the dial decides is still None."""
    settings = dataclasses.asdict(options)
    for name in ("mask", "held"):
        if not 0 < settings[name] < 1:
            raise BadOption(f"{name} = {settings[name]}", "a share between 0 and 1", f"give for example --set objective.{name}=0.5")
    if settings["codes"] < 2 or settings["span"] < 1 or settings["window"] <= 0:
        raise BadOption("codes, span or window is too small", "codes >= 2, span >= 1, window > 0", "correct it")
    if setting.start is not None:
        given = next((name for name in ("width", "depth", "rate") if settings[name] is not None), None)
        if given is not None:
            raise BadOption(f"{given} was given together with --from", "the shape and the rate of the body", f"leave out objective.{given}")
        body: Any = _opened(setting.start)
        settings |= {"width": int(body.config.hidden_size), "depth": int(body.config.num_hidden_layers)}
        settings["rate"] = extraction.rate_of(setting.start)
    settings["rate"] = settings["rate"] or sound_corpus.rate_of(values, folder=folder, given_rate=given_rate)
    return settings


def _decided(setting: Setting, settings: dict[str, Any], data: _Data) -> Wav2VecLearner:
    """The learner with everything decided: the largest size that sees the data often enough in the time, and steps by the time."""
    by_time = setting.size is None and setting.seconds is not None and settings["width"] is None and settings["depth"] is None
    candidates = list(SIZES) if by_time else [setting.size or "tiny"]
    learner, per_step = _measured(setting, _sized(settings, candidates[0], data), data)
    for name in candidates[1:]:
        larger, its_step = _measured(setting, _sized(settings, name, data), data)
        if (setting.seconds or 0.0) < ENOUGH_PASSES * larger.per_epoch * its_step:
            break
        learner, per_step = larger, its_step
    resolved = {**learner.settings, "steps": _steps(learner, setting, per_step)}
    final = _learner(setting, resolved, data)
    final.plan = dataclasses.replace(final.plan, seconds=resolved["steps"] * per_step)
    return final


def _sized(settings: dict[str, Any], name: str, data: _Data) -> dict[str, Any]:
    """The settings with what a size decides."""
    width, depth = SIZES[name]
    width, depth = settings["width"] or width, settings["depth"] or depth
    seconds = float(data.train.lengths[data.rows[0]].sum()) / data.train.rate
    defaults = {
        "width": width,
        "depth": depth,
        "batch": min(BATCH_SECONDS, seconds / STEPS_IN_A_PASS),
        "lr": LR * (LR_WIDTH / width) ** 0.5,
    }
    return settings | {key: value for key, value in defaults.items() if settings[key] is None}


def _measured(setting: Setting, settings: dict[str, Any], data: _Data) -> tuple[Wav2VecLearner, float]:
    """A learner of these settings, and its seconds a step."""
    learner = _learner(setting, settings | {"steps": settings["steps"] if settings["steps"] is not None else 1}, data)
    per_step = 0.0 if settings["steps"] == 0 else dial.seconds_per_step(learner, setting)
    learner.settings["steps"] = settings["steps"]
    return learner, per_step


def _steps(learner: Wav2VecLearner, setting: Setting, per_step: float) -> int:
    if learner.settings["steps"] is not None:
        return int(learner.settings["steps"])
    if setting.seconds is None:
        return int(max(FEWEST_STEPS, min(PASSES * learner.per_epoch, MOST_STEPS)))
    steps = int(setting.seconds / max(per_step, 1e-9))
    if steps < FEWEST_STEPS:
        raise BudgetTooSmall(
            f"{steps} steps fit into {setting.seconds:.0f} s",
            f"time for {FEWEST_STEPS} steps of {per_step:.2f} s",
            "give a larger --budget",
        )
    return min(steps, MOST_PASSES * learner.per_epoch)


def _learner(setting: Setting, settings: dict[str, Any], data: _Data) -> Wav2VecLearner:
    body = _opened(setting.start) if setting.start is not None else _made(settings, setting.seed)
    return Wav2VecLearner(setting, settings, body=body, train=data.train, held=data.held, rows=data.rows)


def _made(settings: dict[str, Any], seed: int) -> nn.Module:
    width, depth = int(settings["width"]), int(settings["depth"])
    if width < 8 or width % 8 or depth < 1:
        raise BadOption(f"width = {width}, depth = {depth}", "a width that is a multiple of 8, a depth of 1 or more", "correct it")
    return fresh_body(wav2vec.body_config(width=width, depth=depth, rate=int(settings["rate"]), dropout=float(settings["dropout"])), seed)


def _opened(folder: Path) -> nn.Module:
    body: Any = store.load_body(folder)
    if getattr(body.config, "model_type", "") != "wav2vec2" or not hasattr(body, "masked_spec_embed"):
        raise BackboneNotFound(
            f"{type(body).__name__} in {folder} cannot be gone on with",
            "a Wav2Vec2 body with a vector for masked frames",
            "leave out --from; for adapt --unlabelled name such a body with --backbone",
        )
    found: nn.Module = body.train()
    return found


def _recordings(data: Any, setting: Setting) -> tuple[list[Any], Path, list[int], str]:
    """The recordings that ``data`` lists, what their paths are relative to, their rows, and the name of the source."""
    part = registry.create("modalities", "audio", options=dict(setting.modality_options))
    table = sources.opened(data, part, skip_bad=setting.skip_bad)
    given = {role: name for role, name in setting.column.items() if role in part.roles}
    for name in given.values():
        if name not in table.columns:
            listed = ", ".join(map(repr, list(table.columns)[:20]))
            raise ColumnNotFound(
                f"{table.source} has no column {name!r}.{nearest(name, table.columns)}", f"columns: {listed}", "correct it"
            )
    column = part.infer(table.columns, given)["audio"]
    return table.columns[column], sources.folder_of(table.source), table.rows, table.source


def _parts(sounds: SoundCorpus, share: float, seed: int, source: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows to learn from, and windows of other recordings to measure on; of few recordings, other windows.

    Raises:
        DataError: There is a single window.
    """
    owners = sounds.recordings if sounds.n_recordings >= BY_RECORDING else np.arange(len(sounds.recordings))
    units = np.unique(owners)
    if len(units) < 2:
        raise DataError(
            f"{source} holds {sounds.seconds:.1f} s of sound in a single window",
            "at least two windows: one to learn from, one to measure on",
            "give more sound, or smaller windows: --set objective.window=1",
        )
    random = np.random.default_rng([seed, SPLIT])
    held = random.permutation(units)[: max(1, min(MOST_HELD, round(share * len(units))))]
    out = np.isin(owners, held)
    return np.flatnonzero(~out), np.flatnonzero(out)
