"""What a size or a budget means for masked language modelling, and the learner that comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from warmstart.core.errors import BadOption, BudgetTooSmall
from warmstart.engine import dial, masked_data, masked_model, sentence_pairs, training
from warmstart.engine.clock import Clock
from warmstart.engine.learner import Setting
from warmstart.engine.masked_batches import How
from warmstart.engine.masked_data import Read
from warmstart.engine.masked_learner import MaskedLearner
from warmstart.engine.masked_model import MaskedModel
from warmstart.engine.seeds import seeded


@dataclass(frozen=True)
class Size:
    """A body and how it is trained: ``width`` features, ``depth`` layers, rows of ``context`` tokens, ``batch`` tokens a step."""

    width: int
    depth: int
    context: int
    batch: int
    lr: float


SIZES = {
    "tiny": Size(width=128, depth=2, context=128, batch=4_096, lr=2e-3),
    "small": Size(width=512, depth=4, context=128, batch=8_192, lr=1e-3),
    "base": Size(width=768, depth=12, context=512, batch=65_536, lr=4e-4),
}
"""The shapes of BERT-Tiny, BERT-Small (Turc et al. 2019) and BERT-Base (Devlin et al. 2019)."""

CONTINUED = Size(width=0, depth=0, context=128, batch=4_096, lr=1e-4)
HEAD, SHORTEST = 64, 8
TOKENS_PER_PARAMETER = 20
"""The ratio of compute-optimal training (Hoffmann et al. 2022): a budget picks the largest size that it lets see so many."""

MOST_EPOCHS, LIMIT_EPOCHS = 40, 400
"""Passes over the corpus without a budget, and the most that a budget buys."""

DROPOUT_FROM, DROPOUT = 40, 0.1
OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
"""Architectures whose positions begin after the padding token's id."""

FEW_PAIRS = 0.9
"""With a larger share of documents that are a single sentence there is no second task by default."""

FEWEST_STEPS, ENOUGH_STEPS, SMALLEST_BATCH = 5, 200, 1_024
TYPICAL_UTILISATION = 0.4
COUNTED = 1 << 22


def prepare(options: Any, setting: Setting) -> MaskedLearner:
    """Read the corpus, decide what is open, and build the learner.

    Args:
        options: Those of the objective ``bert``.
        setting: What is asked.

    Raises:
        InputError: The corpus or an option is wrong.
        BudgetTooSmall: Not even a few steps fit.
    """
    _check(options)
    clock = Clock(setting.seconds)
    read = masked_data.read(setting, tokenizer=options.tokenizer, size=options.vocabulary, lowercase=options.lowercase, held=options.held)
    settings = dict(setting.settings) or _shape(options, setting, read, clock)
    with seeded(setting.seed):
        model, notes = _model(settings, setting, read)
    learner = _learner(model, settings, read, setting)
    if not setting.settings:
        learner = _schedule(options, setting, learner, clock)
    return _planned(learner, setting, notes)


def _check(options: Any) -> None:
    """Refuse values that mean nothing.

    Raises:
        BadOption: One of them.
    """
    limits = {"mask": (0.01, 0.9), "held": (0.001, 0.5), "warmup": (0.0, 1.0), "dropout": (0.0, 0.9)}
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise BadOption(f"{name} = {value}", f"expected {low} to {high}", f"correct --set objective.{name}=...")
    for name in ("width", "depth", "heads", "vocabulary", "batch", "at_once", "lr"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise BadOption(f"{name} = {value}", "expected more than 0", f"correct --set objective.{name}=...")
    if options.context is not None and options.context < SHORTEST:
        raise BadOption(f"context = {options.context}", f"at least {SHORTEST} tokens", "correct --set objective.context=...")
    if options.steps is not None and options.steps < 0:
        raise BadOption(f"steps = {options.steps}", "expected 0 (save at random) or more", "correct --set objective.steps=...")


def _shape(options: Any, setting: Setting, read: Read, clock: Clock) -> dict[str, Any]:
    """Everything but the number of steps."""
    size = CONTINUED if setting.start is not None else SIZES[setting.size or _affordable(setting, read, clock)]
    device = setting.device.type
    chosen: dict[str, Any] = {
        "context": options.context or size.context,
        "second": _second(options.second, read),
        "mask": options.mask,
        "whole_word": options.whole_word,
        "batch": options.batch or size.batch,
        "at_once": options.at_once or (65_536 if device == "cuda" else 4_096),
        "warmup": options.warmup,
        "weight_decay": options.weight_decay,
        "lr": options.lr or size.lr,
        "steps": 0,
        "seconds_per_step": 0.0,
        "dropout": options.dropout or 0.0,
        "held": options.held,
    }
    if setting.start is not None:
        given = [name for name in ("width", "depth", "heads", "vocabulary", "tokenizer") if getattr(options, name) is not None]
        if given:
            raise BadOption(f"{given[0]} was given together with --from", "the shape of the body to go on from", f"leave {given[0]} out")
        limit = _limit(setting.start, read.tokenizer)
        if options.context is not None and options.context > limit:
            raise BadOption(f"context = {options.context}", f"at most {limit}, the positions of {setting.start}", "give a smaller one")
        return {**chosen, "context": min(chosen["context"], limit)}
    width = options.width or size.width
    heads = options.heads or max(1, width // HEAD)
    if width % heads:
        raise BadOption(f"width = {width} and heads = {heads}", "a width that is a multiple of the heads", "correct one of them")
    return {**chosen, "width": width, "depth": options.depth or size.depth, "heads": heads}


def _second(asked: str, read: Read) -> str:
    if asked != "auto":
        return asked
    return "none" if sentence_pairs.single_share(read.train) > FEW_PAIRS else "nsp"


def _affordable(setting: Setting, read: Read, clock: Clock) -> str:
    """The largest size that sees ``TOKENS_PER_PARAMETER`` tokens a parameter in the time there is, by this machine's matrix products."""
    if setting.seconds is None:
        return "tiny"
    speed = TYPICAL_UTILISATION * dial.matmul_flops(setting.device, setting.precision)
    for name, size in reversed(SIZES.items()):
        body = 12 * size.depth * size.width**2
        parameters = body + read.vocabulary.size * size.width
        if clock.remaining() * speed / (6 * (body + 0.15 * read.vocabulary.size * size.width)) >= TOKENS_PER_PARAMETER * parameters:
            return name
    return "tiny"


def _model(settings: dict[str, Any], setting: Setting, read: Read) -> tuple[MaskedModel, list[str]]:
    """The module, drawn from torch's generator or opened; what could not be had changes ``settings`` and is noted."""
    notes, complete = [], False
    if setting.start is not None:
        model, complete = masked_model.opened(setting.start)
        if not complete:
            notes.append("the body came without a head for masked words: it begins at the embeddings and the words' frequencies")
    else:
        entries = -(-read.vocabulary.size // 64) * 64  # matrix units like multiples; what is added is never predicted
        names = ("width", "depth", "heads", "context")
        model = masked_model.fresh(vocabulary=entries, pad=read.vocabulary.pad, **{name: settings[name] for name in names})
    if not complete:
        counts = np.bincount(read.train.tokens[:COUNTED], minlength=read.vocabulary.size)
        masked_model.start_at_frequencies(model, torch.from_numpy(counts))
    if settings["second"] != "none" and int(getattr(model.config, "type_vocab_size", 0) or 0) < 2:  # type: ignore[union-attr, arg-type]
        settings["second"] = "none"
        notes.append("no second task: this body cannot tell a first sentence from a second (it has no token-type embeddings)")
    if len(read.tokenizer) > model.get_input_embeddings().num_embeddings:  # type: ignore[operator]
        raise BadOption("the tokenizer has more entries than the body has embeddings", "a tokenizer of this body", "copy the original one")
    return MaskedModel(model, second=settings["second"] != "none"), notes


def _learner(model: MaskedModel, settings: dict[str, Any], read: Read, setting: Setting) -> MaskedLearner:
    training.plain_attention(model.body)
    how = How(read.vocabulary, settings["mask"], settings["whole_word"], settings["second"] != "none", settings["at_once"], setting.device)

    def save_tokenizer(folder: Path) -> None:
        if setting.start is None:
            read.tokenizer.model_max_length = settings["context"]
        read.tokenizer.save_pretrained(str(folder))

    return MaskedLearner(
        model.to(setting.device),
        train=read.train,
        held=read.held,
        how=how,
        settings=settings,
        corpus=read.told,
        save_tokenizer=save_tokenizer,
        decode=read.tokenizer.decode,
        seed=setting.seed,
        rank=setting.rank,
        world=setting.world,
    )


def _schedule(options: Any, setting: Setting, learner: MaskedLearner, clock: Clock) -> MaskedLearner:
    """Decide the number of steps, and dropout by it. Where a budget is short the batch shrinks: enough steps matter more than large ones.

    Raises:
        BudgetTooSmall: The time is not enough for a few steps.
    """
    a_token = 0.0 if options.steps == 0 else _measured(learner, setting)
    if setting.seconds is not None and options.steps is None and options.batch is None:
        batch = learner.settings["batch"]
        while clock.remaining() < ENOUGH_STEPS * batch * a_token and batch > SMALLEST_BATCH:
            batch //= 2
        learner = learner.with_batch(batch)
    settings, epoch = learner.settings, learner.steps_per_epoch
    settings["seconds_per_step"] = a_token * settings["batch"]
    if options.steps is not None:
        steps = options.steps
    elif setting.seconds is None:
        steps = min(MOST_EPOCHS * epoch, math.ceil(TOKENS_PER_PARAMETER * learner.plan.parameters / settings["batch"]))
    else:
        steps = min(LIMIT_EPOCHS * epoch, int(clock.remaining() / settings["seconds_per_step"]))
        if steps < FEWEST_STEPS:
            raise BudgetTooSmall(
                f"{setting.seconds:.0f} s are enough for {max(0, steps)} steps of {settings['batch']:,} tokens",
                f"at least {FEWEST_STEPS} steps",
                "give more time, a smaller --size, or a smaller --set objective.batch=...",
            )
    settings["steps"] = steps
    settings["most_steps"] = LIMIT_EPOCHS * epoch if setting.seconds is not None and options.steps is None else 0
    if options.dropout is None:
        settings["dropout"] = DROPOUT if steps > DROPOUT_FROM * epoch else 0.0
    return learner


def _measured(learner: MaskedLearner, setting: Setting) -> float:
    """Seconds a token takes in a step of as many tokens as are computed at a time; of fewer, where these take long enough already."""
    settings = learner.settings
    part = min(settings["batch"], settings["at_once"])
    few = min(part, SMALLEST_BATCH)
    found = dial.seconds_per_step(learner.with_batch(few), setting, steps=2) / few
    if few < part and (setting.seconds is None or 3 * part * found <= dial.MEASURING * setting.seconds):
        found = dial.seconds_per_step(learner.with_batch(part), setting, steps=2) / part
    return float(found)


def _planned(learner: MaskedLearner, setting: Setting, notes: list[str]) -> MaskedLearner:
    settings, told = learner.settings, learner.corpus
    _drop(learner.module, settings["dropout"])
    steps, count = settings["steps"], settings["steps"] * settings["batch"]
    epochs = steps / learner.steps_per_epoch
    shape = f"{settings['context']} tokens a row, {settings['batch']:,} a step, {epochs:.1f} passes over the corpus"
    said = (f"second task: {settings['second']}; {shape}; peak learning rate {settings['lr']:g}, dropout {settings['dropout']:g}",)
    seconds = steps * settings["seconds_per_step"]
    learner.plan = replace(learner.plan, steps=steps, count=count, seconds=seconds, memory_bytes=_memory(learner, setting), notes=said)
    learner.corpus = replace(told, notes=(*told.notes, *notes))
    return learner


def _drop(module: nn.Module, share: float) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = share


def _memory(learner: MaskedLearner, setting: Setting) -> int:
    """Weights, gradients and moments; what one small batch keeps for its backward pass; its logits. A rough prediction."""
    settings, config = learner.settings, learner.config
    small, tokens = (0 if setting.precision == torch.float32 else 4), min(settings["batch"], settings["at_once"])
    size = 4 if setting.precision == torch.float32 else 2
    depth, width = int(config.num_hidden_layers), int(config.hidden_size)
    kept = tokens * depth * (34 * width + 3 * int(config.num_attention_heads) * settings["context"]) * size // 2
    logits = int(tokens * settings["mask"]) * int(config.vocab_size) * (2 * size + 8)
    return int(learner.plan.parameters * (16 + small) + kept + logits)


def _limit(folder: Path, tokenizer: Any) -> int:
    """The longest row that a body takes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in OFFSET:
        positions -= int(config.get("pad_token_id") or 0) + 1
    return int(min(positions, tokenizer.model_max_length))
