"""The folder that ``pretrain`` leaves: body, card, recipe, curves, report."""

from __future__ import annotations

import base64
import dataclasses
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from warmstart.core import card as cards
from warmstart.core import recipe as recipes
from warmstart.core.card import Body, Card, Source
from warmstart.core.protocols import Learner
from warmstart.core.recipe import PretrainRecipe
from warmstart.core.report import Metric, PretrainReport
from warmstart.core.words import counted
from warmstart.engine import backbone, device, pretrain_page, store
from warmstart.engine.learner import Picture
from warmstart.engine.loop import Outcome

WIDEST = 640
"""Pixels; small pictures are enlarged by whole factors up to this, larger ones made smaller."""


def report(
    recipe: PretrainRecipe, learner: Learner, outcome: Outcome, *, model: str, environment: Mapping[str, str], command: str
) -> PretrainReport:
    """What a finished run measured; runs the last measurements."""
    module, history = learner.module, outcome.history
    names = dict.fromkeys(name for row in history.rows for name in row if name not in ("phase", "step", "seconds"))
    replans = outcome.replans
    steps = [replans[phase.name][-1][1] if replans.get(phase.name) else phase.steps for phase in learner.phases()]
    metrics = learner.finish(module)
    return PretrainReport(
        model=model,
        objective=recipe.objective,
        modality=_modality(recipe, learner),
        start=recipe.start or "",
        source=Path(learner.corpus.source).name or learner.corpus.source,
        parameters=learner.plan.parameters,
        steps=outcome.steps,
        unit=learner.plan.unit,
        count=outcome.count,
        seconds=0.0,
        training_seconds=outcome.seconds,
        metrics=metrics,
        items=dict(learner.corpus.items),
        left_out=dict(learner.corpus.left_out),
        settings=learner.settings,
        curves={name: history.curve(name) for name in names},
        phases=[(phase.name, sum(steps[: i + 1])) for i, phase in enumerate(learner.phases())],
        pictures=[(picture.title, data_uri(picture)) for picture in learner.pictures(module)],
        samples=list(learner.samples(module)),
        events=outcome.events,
        planned={"seconds": learner.plan.seconds, "steps": learner.plan.steps, "memory_bytes": learner.plan.memory_bytes},
        environment=dict(environment),
        command=command,
        seed=recipe.seed,
        warnings=[*learner.corpus.notes, *_thin(metrics)],
    )


def write(
    folder: Path, *, recipe: PretrainRecipe, learner: Learner, plan: dict[str, Any], report: PretrainReport, seconds: float
) -> PretrainReport:
    """Everything beside the body: recipe, report, curves for TensorBoard, model card, and ``card.json`` as the last file."""
    report = dataclasses.replace(report, seconds=seconds, peak_bytes=device.peak_bytes())
    store.write_text(folder / "recipe.json", recipes.as_json(dataclasses.replace(recipe, plan=plan)))
    store.write_json(folder / "report.json", report.as_dict())
    pretrain_page.write(report, folder / "report.html")
    events = folder / ".work" / "tensorboard"
    if events.is_dir():
        shutil.copytree(events, folder / "tensorboard", dirs_exist_ok=True)
    licence = cards.licence(backbone.find(recipe.start)[1]) if recipe.start else "unknown"
    body = Body(folder.name.removesuffix(".partial"), store.fingerprint(folder), licence, report.parameters)
    card = Card(
        verb="pretrain",
        task="pretraining",
        modality=report.modality,
        strategy=recipe.objective,
        labels=(),
        columns=dict(recipe.column),
        backbone=body,
        data=Source(report.source, learner.corpus.rows(split=recipe.validation is None), learner.corpus.hash),
        head="body",
        parents=(recipe.start,) if recipe.start else (),
        metrics=report.metrics,
    )
    facts = {
        "parameters": f"{report.parameters:,}",
        "trained on": f"{report.count:,} {report.unit} in {counted(report.steps, 'step')}",
        "data": ", ".join(f"{count:,} {noun}" for noun, count in report.items.items()),
    }
    store.write_text(folder / "README.md", cards.body_readme(card, facts))
    card.write(folder)
    return report


def data_uri(picture: Picture) -> str:
    """The pixels as a PNG that a page can hold, enlarged without blur."""
    pixels = np.asarray(picture.pixels.detach().float().clamp(0, 1).mul(255).round().byte().cpu())
    image = Image.fromarray(pixels)
    if (factor := WIDEST // image.width) > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif image.width > 2 * WIDEST:
        image.thumbnail((2 * WIDEST, 4 * WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _thin(metrics: Mapping[str, Metric]) -> list[str]:
    """A warning where nothing was measured on more than one row."""
    alone = [name for name, metric in metrics.items() if metric.n == 1]
    if not alone:
        return []
    few = "one held-out row or window alone, which says next to nothing"
    return [f"{' and '.join(alone)}: measured on {few}; give more data, or --validation"]


def _modality(recipe: PretrainRecipe, learner: Learner) -> str:
    from warmstart.core import registry

    if recipe.modality != "auto":
        return recipe.modality
    told = learner.settings.get("modality")
    modalities: tuple[str, ...] = registry.module("objectives", recipe.objective).Part.modalities
    return str(told) if told else modalities[0]
