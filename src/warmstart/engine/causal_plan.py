"""What a size or a budget means for next-token prediction, and the learner that comes of it.

The dial. ``tiny``, ``small`` and ``base`` are shapes (``SIZES``). A shape is trained on 20 tokens a parameter (Hoffmann et al. 2022), but
on at most four passes over the corpus, beyond which fresh text is worth more (Muennighoff et al. 2023). With a budget alone, the largest
shape is taken for which the time suffices for those 20 tokens a parameter; with a budget the steps are those that fit, by steps timed on
the spot, up to 16 passes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from warmstart.core.errors import BadOption, BudgetTooSmall
from warmstart.engine import causal, dial, store, tokens, vocabulary
from warmstart.engine.causal_learner import CausalLearner, Data
from warmstart.engine.corpus import Texts
from warmstart.engine.learner import Plan, Setting


@dataclass(frozen=True)
class Size:
    """A named shape; ``tokens`` of a step, and peak learning rates of Muon and AdamW."""

    depth: int
    width: int
    context: int
    tokens: int
    muon_lr: float
    lr: float


SIZES = {
    "tiny": Size(4, 128, 128, 1024, 0.02, 0.02),
    "small": Size(6, 384, 256, 4096, 0.02, 3e-3),
    "base": Size(12, 768, 512, 16384, 0.02, 1.5e-3),
}
TOKENS_PER_PARAMETER, PASSES, MOST_PASSES = 20, 4, 16
ADAMW_LR, CONTINUED = 0.3, 0.1
"""AdamW alone gets this share of the rate that it has beside Muon; a pre-trained body gets this share of either."""
LEAST_STEPS = 20


def prepare(options: Any, setting: Setting) -> CausalLearner:
    """The learner for an objective's ``options`` (those of ``parts/objectives/gpt.py``) and a setting.

    Raises:
        InputError: The data or an option is wrong.
        BudgetTooSmall: Not even a few steps fit.
    """
    settings = dict(setting.settings) or _asked(options, setting)
    texts = Texts(setting.data, column=setting.column, skip_bad=setting.skip_bad, whole=settings["tokenizer"] == "characters")
    tokenizer, end = _tokenizer(texts, settings, setting)
    data = Data(texts, tokenizer, end, _files(texts, tokenizer, settings, setting))
    model = None if setting.start is None else store.load_causal(setting.start)
    if not setting.settings:
        _shape(settings, setting, data, None if model is None else model.config)
    if model is None:
        model = _fresh(settings, setting, data)
    learner = CausalLearner(model.to(setting.device), settings, setting, data)
    if "steps" not in settings:
        settings["steps"] = _steps(learner)
    learner.plan = _plan(learner)
    return learner


def _asked(options: Any, setting: Setting) -> dict[str, Any]:
    """Options that were given, checked; what is None is decided later."""
    settings = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    least = {"depth": 1, "width": 2, "heads": 1, "context": 2, "batch": 1, "steps": 0, "vocabulary": 3}
    for name, low in least.items():
        if name in settings and settings[name] < low:
            raise BadOption(f"{name} = {settings[name]}", f"{low} or more", f"correct objective.{name}")
    if not 0 < settings["held"] < 1:
        raise BadOption(f"held = {settings['held']}", "more than 0, less than 1", "give for example objective.held=0.1")
    if setting.start is not None and (fixed := [n for n in ("depth", "width", "heads", "vocabulary") if n in settings]):
        raise BadOption(f"{fixed[0]} beside a body to go on from", "a shape that is the body's own", f"leave objective.{fixed[0]} out")
    settings["size"] = setting.size
    return settings


def _tokenizer(texts: Texts, settings: dict[str, Any], setting: Setting) -> tuple[Any, int | None]:
    """The tokenizer, and the token that ends a text. A trained one is kept in the run's folder."""
    if setting.start is not None:
        found = vocabulary.load(setting.start)
        return found.backend_tokenizer, found.eos_token_id
    from tokenizers import Tokenizer

    path = setting.folder / "tokenizer.json"
    if path.is_file():
        tokenizer = Tokenizer.from_file(str(path))
    else:
        size = settings.get("vocabulary") or min(32_768, max(512, texts.survey().characters // 400))
        if settings["tokenizer"] == "characters":
            size = settings.get("vocabulary") or 32_768
        tokenizer = vocabulary.train(texts, kind=settings["tokenizer"], size=size, seed=setting.seed)
        store.write_text(path, tokenizer.to_str())
    return tokenizer, tokenizer.token_to_id(vocabulary.END)


def _files(texts: Texts, tokenizer: Any, settings: dict[str, Any], setting: Setting) -> dict[str, tokens.TokenFile]:
    if setting.validation is None:
        built = tokens.build(texts, tokenizer, folder=setting.folder, held=settings["held"], seed=setting.seed)
        return {"train": built["train"], "held": built["held"]}
    held = Texts(setting.validation, column=setting.column, skip_bad=setting.skip_bad, whole=texts.whole)
    parts = {"train": texts, "held": held}
    return {name: tokens.build(found, tokenizer, folder=setting.folder)["train"] for name, found in parts.items()}


def _fresh(settings: dict[str, Any], setting: Setting, data: Data) -> nn.Module:
    names = ("width", "depth", "heads", "context", "positions", "mlp", "qk_norm", "tied")
    chosen = {name: settings[name] for name in names}
    config = causal.configuration(vocabulary=data.tokenizer.get_vocab_size(), end=data.end, **chosen)
    return causal.create(config, seed=setting.seed)


def _shape(settings: dict[str, Any], setting: Setting, data: Data, config: Any) -> None:
    """Decide shape, batch and learning rates: options first, then the named size, then what the time allows; or the body's ``config``."""
    if config is not None:
        name = min(SIZES, key=lambda n: abs(math.log(SIZES[n].width / config.hidden_size)))
        most = int(getattr(config, "max_position_embeddings", 0) or 1024)
        settings.setdefault("context", min(SIZES[name].context, most))
        if settings["context"] > most:
            raise BadOption(f"context = {settings['context']}", f"at most the body's {most}", "give a shorter objective.context")
    else:
        name = setting.size or ("tiny" if setting.seconds is None else _affordable(setting, data.tokenizer))
        width = settings.setdefault("width", SIZES[name].width)
        settings.setdefault("depth", SIZES[name].depth)
        settings.setdefault("heads", max(1, width // (32 if width <= 256 else 64)))
        settings.setdefault("context", SIZES[name].context)
    size, share = SIZES[name], 1.0 if config is None else CONTINUED
    shortest = min(len(file.tokens) + len(file.documents) * (data.end is not None) for file in data.files.values()) - 2
    if settings["context"] > max(1, shortest):
        settings["context_wanted"], settings["context"] = settings["context"], max(1, shortest)
    settings.setdefault("batch", max(1, size.tokens // settings["context"]))
    settings.setdefault("muon_lr", share * size.muon_lr)
    settings.setdefault("lr", share * size.lr * (ADAMW_LR if settings["optimizer"] == "adamw" else 1.0))


def _affordable(setting: Setting, tokenizer: Any) -> str:
    """The largest size for which the budget suffices for 20 tokens a parameter, by the speed of matrix products on this device."""
    speed = dial.matmul_flops(setting.device, setting.precision) * 0.4  # what a whole step reaches of it
    for name in reversed(SIZES):
        size = SIZES[name]
        parameters = 12 * size.depth * size.width**2 + tokenizer.get_vocab_size() * size.width
        if 6 * parameters * parameters * TOKENS_PER_PARAMETER / speed <= (setting.seconds or 0):
            return name
    return "tiny"


def _steps(learner: CausalLearner) -> int:
    """By the rule at the top of this file."""
    setting, settings = learner.setting, learner.settings
    per_step = int(settings["batch"] * settings["context"])
    passes = learner.train.length / per_step
    wanted = TOKENS_PER_PARAMETER * learner.plan.parameters / per_step
    if setting.seconds is None:
        return max(1, math.ceil(min(wanted, PASSES * passes)))
    each = dial.seconds_per_step(learner, setting)
    fits = int(0.9 * setting.seconds / each)
    if fits < LEAST_STEPS:
        raise BudgetTooSmall(
            f"a step takes {each:.2f} s, so {setting.seconds:.0f} s are {fits} steps",
            f"at least {LEAST_STEPS} steps",
            "give more time, a smaller --size, or a smaller objective.batch",
        )
    settings["seconds_per_step"] = each
    settings["most_steps"] = max(LEAST_STEPS, math.ceil(MOST_PASSES * passes))
    return min(fits, int(settings["most_steps"]))


def _plan(learner: CausalLearner) -> Plan:
    settings, setting = learner.settings, learner.setting
    per_step = settings["batch"] * settings["context"]
    if "seconds_per_step" not in settings:
        settings["seconds_per_step"] = dial.seconds_per_step(learner, setting) if settings["steps"] else 0.0
    config: Any = learner.module.model.config
    width, depth = config.hidden_size, config.num_hidden_layers
    local = -(-per_step // setting.world)
    bytes_each = 2 if setting.precision == torch.bfloat16 else 4
    activations = local * depth * (30 * width + 2 * config.num_attention_heads * settings["context"]) * bytes_each
    memory = learner.plan.parameters * (16 + 2 * bytes_each * (bytes_each == 2)) + activations
    passes = settings["steps"] * per_step / learner.train.length
    return dataclasses.replace(
        learner.plan,
        steps=settings["steps"],
        count=settings["steps"] * per_step,
        seconds=settings["steps"] * settings["seconds_per_step"],
        memory_bytes=int(memory),
        notes=(
            f"{config.model_type}, {depth} blocks, {width} wide, context {settings['context']:,}",
            f"{passes:.1f} passes over the corpus",
        ),
    )
