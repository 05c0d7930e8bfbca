"""The verbs as Python functions: the same words as on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart.core import recipe as recipes
from warmstart.core.recipe import AnyRecipe, PretrainRecipe, Recipe
from warmstart.core.report import PretrainReport

if TYPE_CHECKING:
    from warmstart.engine.importing import Imported
    from warmstart.engine.model import Model


def adapt(
    data: Any,
    *,
    out: str | Path,
    budget: str | float = "5m",
    test: Any = None,
    task: str = "auto",
    column: Mapping[str, str] | None = None,
    group: str | None = None,
    modality: str = "auto",
    backbone: str | Path = "auto",
    unlabelled: str | Path | None = None,
    strategy: str = "auto",
    prefer: Literal["best", "cheapest"] = "best",
    compatible: Literal["any", "transformers"] = "any",
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    max_length: int = 256,
    skip_bad: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | Path | Recipe | None = None,
    force: bool = False,
    quiet: bool = True,
) -> Model:
    """Fit a pre-trained model to labelled rows inside a time budget, and measure what it gained.

    Args:
        data: A path, or a pandas or polars frame, a mapping of columns, or a Hugging Face ``Dataset``.
        out: Model folder to write.
        budget: Time for the whole run: seconds, or text such as ``"60s"``, ``"5m"``, ``"1.5h"``.
        test: Test rows, as ``data``; without them a part of ``data`` is set aside.
        task: What is asked; ``auto`` tells from the labels.
        column: Which column plays which role, ``{"text": "review", "label": "stars"}``; the rest is inferred.
        group: Column whose equal values stay on one side of a split.
        modality: Kind of input; ``auto`` tells from the data.
        backbone: A folder, or a hub id; ``auto`` is ``minilm`` for text, and none for images.
        unlabelled: Path of unlabelled data to go on pre-training with first; kept if it measurably helps.
        strategy: ``auto`` climbs the ladder; a name runs that rung alone.
        prefer: The best score, or the cheapest rung within one standard error of it.
        compatible: ``transformers`` keeps to rungs that ``transformers.pipeline`` can open.
        seed: Seed of every random choice.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: Number type of the body.
        max_length: Longest input in tokens; the rest is cut off.
        skip_bad: Leave out rows that cannot be used, and count them.
        options: Options of the chosen parts by family, ``{"strategy": {"head": "native"}}``.
        recipe: A recipe, or its file; arguments that differ from their defaults change it.
        force: Overwrite ``out``.
        quiet: Print no progress.

    Returns:
        The model as it lies in ``out``.

    Raises:
        InputError: What was given is wrong; says what to do.
        RunError: The run failed.
    """
    given = {
        "budget": budget if budget != "5m" else 300.0,
        "task": task,
        "column": dict(column or {}),
        "group": group,
        "modality": modality,
        "backbone": str(backbone),
        "unlabelled": None if unlabelled is None else str(unlabelled),
        "strategy": strategy,
        "prefer": prefer,
        "compatible": compatible,
        "seed": seed,
        "device": device,
        "precision": precision,
        "max_length": max_length,
        "skip_bad": skip_bad,
        "options": {family: dict(chosen) for family, chosen in (options or {}).items()},
    }
    resolved, objects = _resolved(recipe, Recipe(), given, {"data": data, "test": test})
    from warmstart.stages import adapt as stage

    stage.run(resolved, **objects, out=Path(out), force=force, quiet=quiet, command="warmstart.adapt(...)")
    return load(out, device=device, precision=precision)


def pretrain(
    data: Any,
    *,
    out: str | Path,
    objective: str = "",
    validation: Any = None,
    modality: str = "auto",
    column: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    start: str | Path | None = None,
    size: Literal["tiny", "small", "base"] | None = None,
    budget: str | float | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    parallel: Literal["ddp", "fsdp"] = "ddp",
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | Path | PretrainRecipe | None = None,
    force: bool = False,
    quiet: bool = True,
) -> PretrainReport | None:
    """Train a body on data, with or without labels; ``adapt(..., backbone=out)`` then starts from it.

    Args:
        data: Text, a table, or a folder, as the objective asks for; or an object that it takes.
        out: Folder to write.
        objective: How to learn: ``bert``, ``gpt``, ``autoencoder``, ... (``warmstart parts objectives``).
        validation: Data to validate on; without it a part of ``data`` is set aside.
        modality: Kind of input; ``auto`` tells from the objective and the data.
        column: Which column plays which role.
        skip_bad: Leave out what cannot be used, and count it.
        start: Body to go on from: a name, a folder, or a hub id.
        size: How large a body.
        budget: Time for the whole run: seconds, or text such as ``"10m"``.
        precision: Number type that is computed in.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        parallel: Processes of ``torchrun`` have the whole model (``ddp``), or a part each (``fsdp``).
        seed: Seed of every random choice.
        options: Options of the chosen parts by family, ``{"objective": {"steps": 300}}``.
        recipe: A recipe, or its file; arguments that differ from their defaults change it.
        force: Overwrite ``out``.
        quiet: Print no plan and no progress.

    Returns:
        What was measured; None in a process that ``torchrun`` started beside the first.

    Raises:
        InputError: What was given is wrong; says what to do.
        RunError: The run failed; the same call resumes it.
    """
    given = {
        "objective": objective,
        "modality": modality,
        "column": dict(column or {}),
        "skip_bad": skip_bad,
        "start": None if start is None else str(start),
        "size": size,
        "budget": budget,
        "precision": precision,
        "device": device,
        "parallel": parallel,
        "seed": seed,
        "options": {family: dict(chosen) for family, chosen in (options or {}).items()},
    }
    resolved, objects = _resolved(recipe, PretrainRecipe(), given, {"data": data, "validation": validation})
    from warmstart.stages import pretrain as stage

    return stage.run(resolved, **objects, out=Path(out), force=force, quiet=quiet, command="warmstart.pretrain(...)")


def import_weights(
    file: str | Path,
    *,
    architecture: str,
    out: str | Path,
    classes: str | Path | None = None,
    licence: str = "unknown",
    origin: str = "",
    options: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Imported:
    """Convert a plain state dict in safetensors to a folder: a backbone, and where it has a classifier a model that ``load`` opens.

    Args:
        file: The state dict.
        architecture: What its tensors are: ``mobilenet_v2``, ``resnet50``, ... (``warmstart parts importers``).
        out: Folder to write.
        classes: Names of its classes in order: a text file with one a line, CSV or JSON.
        licence: Of the weights, such as ``apache-2.0``.
        origin: Where they come from, for the model card.
        options: Of the importer, ``{"padding": "same"}``.
        force: Overwrite ``out``.

    Raises:
        InputError: The file, its tensors, the classes or an option are wrong.
        RunError: The folder would not give what the state dict gives.
    """
    from warmstart.stages import imports

    return imports.run(
        Path(file),
        architecture=architecture,
        out=Path(out),
        classes=None if classes is None else Path(classes),
        licence=licence,
        origin=origin,
        options=dict(options or {}),
        force=force,
    )


def _resolved(
    recipe: str | Path | AnyRecipe | None, default: AnyRecipe, given: Mapping[str, Any], sources: Mapping[str, Any]
) -> tuple[AnyRecipe, dict[str, Any]]:
    """The recipe, changed by arguments that differ from their defaults, and those of the sources that are objects, not paths."""
    paths = {name: str(value) for name, value in sources.items() if isinstance(value, str | Path)}
    base = default if recipe is None else recipes.read(Path(recipe), default) if isinstance(recipe, str | Path) else recipe
    changed = {name: value for name, value in {**given, **paths}.items() if value != getattr(default, name)}
    return recipes.with_values(base, changed), {name: value for name, value in sources.items() if name not in paths}


def load(folder: str | Path, *, device: str = "auto", precision: Literal["auto", "float32", "bfloat16"] = "auto") -> Model:
    """The model that ``adapt`` wrote, with its hashes checked.

    Raises:
        NotAModel: The folder is no finished model folder.
        DamagedModel: A file is not the one that was written.
    """
    from warmstart.engine import model

    return model.load(Path(folder), device=device, precision=precision)
