"""Writing a model folder: predictor, settings, report, model card, and the card with every hash as its last file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from warmstart.core import card as cards
from warmstart.core import recipe as recipes
from warmstart.core.card import Body, Card, Source
from warmstart.core.recipe import Recipe
from warmstart.core.report import Report
from warmstart.engine import bodies, page, store
from warmstart.engine.choice import Scored
from warmstart.engine.dataset import Dataset
from warmstart.engine.model import SETTINGS
from warmstart.engine.predictor import HEAD
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench


def write_card(folder: Path, *, recipe: Recipe, rows: Dataset, bench: Workbench, chosen: Scored) -> Card:
    """The card of a folder whose predictor was saved, with hashes of the files so far."""
    with_body = chosen.step.strategy.serve_cost >= 1
    head: Literal["native", "pooled", "none"] = "none" if not with_body else "pooled" if (folder / HEAD).exists() else "native"
    settings = {
        "max_length": recipe.max_length,
        "precision": str(bench.precision).removeprefix("torch."),
        "options": {family: recipe.options[family] for family in ("modality", "task") if family in recipe.options},
    }
    store.write_json(folder / SETTINGS, settings)
    body = Body("none", "", "none", 0)
    if with_body:
        backbone = bench.backbone
        opened_by: Literal["transformers", "warmstart"] = "warmstart" if bodies.is_own(backbone.model) else "transformers"
        body = Body(backbone.name, backbone.fingerprint, backbone.licence, backbone.parameters, opened_by)
    return Card(
        verb="adapt",
        task=rows.task.name,
        modality=rows.modality.name,
        strategy=chosen.step.strategy.name,
        labels=rows.labels,
        columns=rows.train.columns,
        backbone=body,
        data=Source(Path(rows.train.source).name, len(rows.train.inputs), rows.hash, bench.views if with_body else 0),
        head=head,
        temperature=chosen.temperature,
        parents=(body.name,) if with_body else (),
    ).write(folder)


def write_report(folder: Path, *, card: Card, recipe: Recipe, plan: dict[str, Any], report: Report) -> None:
    """Recipe, report and model card; then the card again, as the last file, with the hashes of all."""
    store.write_text(folder / "recipe.json", recipes.as_json(replace(recipe, plan=plan)))
    store.write_json(folder / "report.json", report.as_dict())
    page.write(report, folder / "report.html")
    card = replace(card, metrics=report.metrics)
    store.write_text(folder / "README.md", cards.readme(card, report.metrics))
    card.write(folder)


def notes(bench: Workbench, steps: Sequence[Step]) -> list[str]:
    """What the activation store has to say of this run, and what came of the views."""
    found = list(bench.store.warnings)
    if bench.views and not any(step.folds and step.strategy.serve_cost >= 1 for step in steps):
        found.append(f"no rung with a body was climbed, so nothing learned from the {bench.views} augmented views of each training row")
    elif bench.views:
        found.append(
            f"rungs with a body learned from {bench.views} augmented views of each training row beside it; held-out and test rows are"
            " predicted from the plain example, without averaging over views"
        )
    reused, computed = bench.origins()
    if reused:
        share = reused / (reused + computed)
        found.append(f"{reused:,} of {reused + computed:,} states came from the activation store ({share:.0%})")
    return found
