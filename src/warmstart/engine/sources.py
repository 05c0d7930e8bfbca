"""Which modality a source is of, and its rows as a table of what that modality uses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmstart.core import registry
from warmstart.core.errors import BadOption, FileUnreadable
from warmstart.core.protocols import Modality
from warmstart.core.recipe import Recipe
from warmstart.engine import backbone
from warmstart.engine.draft import Table
from warmstart.engine.tables import read_table

LAST_RESORT = "text"
"""What a source is where no other modality knows it."""

GENERAL_ROLES = ("label", "group")

NOUNS = {"image": "images", "audio": "recordings"}
"""What a folder of each modality holds; a folder of texts is read as a table of any kind."""


def opened(source: Any, modality: Modality, *, skip_bad: bool) -> Table:
    """``source`` as a table: read by the modality where only it knows how, else as a table of any kind.

    Raises:
        InputError: Whatever ``read_table`` raises.
    """
    if isinstance(source, Table):
        return source
    found = modality.read(source, skip_bad=skip_bad)
    if found is None and (noun := NOUNS.get(modality.name)) and isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        raise FileUnreadable(f"the folder {source} holds no {noun}", f"a folder of {noun}, or a table that names them", "check the path")
    return read_table(source, skip_bad=skip_bad) if found is None else found


def detect(source: Any, given: Mapping[str, str], *, skip_bad: bool) -> tuple[str, Table]:
    """The modality of ``source`` and its rows, asked of every part in turn, text last.

    Args:
        source: Anything that a modality or ``read_table`` takes.
        given: Role to column as the user named them: a modality without such a role is not meant.
        skip_bad: Leave out rows that cannot be read.

    Raises:
        InputError: Whatever ``read_table`` raises.
    """
    asked = [registry.create("modalities", name) for name in registry.parts("modalities") if name != LAST_RESORT]
    asked = [part for part in asked if all(role in (*part.roles, *GENERAL_ROLES) for role in given)]
    for part in asked:
        table = part.read(source, skip_bad=skip_bad)
        if table is not None:
            return part.name, table
    table = read_table(source, skip_bad=skip_bad)
    folder = folder_of(table.source)
    return next((part.name for part in asked if part.matches(table.columns, folder=folder)), LAST_RESORT), table


def folder_of(source: str) -> Path:
    """What relative paths in a table are relative to: the folder it lies in, or for anything but a file the current one."""
    path = Path(source)
    try:
        return path.parent if path.is_file() else Path()
    except OSError:  # no name of a file at all
        return Path()


def resolve(recipe: Recipe, data: Any = None) -> tuple[Recipe, Any, str]:
    """The recipe with its modality and backbone named, the training rows (as given, or as a table where they were read), and a note.

    Where the modality has no default backbone and none is named, ``backbone`` is ``none`` and the note says so.

    Raises:
        InputError: The source is wrong, or the strategy needs a backbone and there is none.
    """
    source = recipe.data if data is None else data
    name = recipe.modality
    if name == "auto":
        name, source = detect(source, recipe.column, skip_bad=recipe.skip_bad)
    modality: Modality = registry.create("modalities", name, options=recipe.options.get("modality"))
    if recipe.backbone != "auto":
        return replace(recipe, modality=name), source, ""
    if modality.default_backbone is not None:
        return replace(recipe, modality=name, backbone=modality.default_backbone), source, ""
    if recipe.strategy != "auto" and registry.create("strategies", recipe.strategy).serve_cost >= 1:
        raise BadOption(f"{recipe.strategy} without a backbone for {name}", f"a pre-trained {name} body", "name one: --backbone FOLDER")
    note = f"no {name} backbone was named, so only rungs without a body were climbed; --backbone FOLDER (or a hub id) adds the others"
    return replace(recipe, modality=name, backbone="none"), source, note


def sized(recipe: Recipe, source: Any, body: Path | None) -> tuple[Recipe, Any]:
    """The recipe with ``modality.size``, where its task wants another size of input than the body was trained with; and the rows.

    Such a task says so by ``size(body)``. What the user set is kept.

    Raises:
        InputError: Whatever ``opened`` raises.
    """
    own = recipe.options.get("modality", {})
    names = list(registry.parts("tasks")) if recipe.task == "auto" else [recipe.task]
    parts = [registry.create("tasks", name, options=recipe.options.get("task") if recipe.task != "auto" else None) for name in names]
    parts = [part for part in parts if hasattr(part, "size") and part.modality == recipe.modality]
    if body is None or not parts or own.get("size"):
        return recipe, source
    modality = registry.create("modalities", recipe.modality, options=own)
    table = opened(source if source is not None else recipe.data, modality, skip_bad=recipe.skip_bad)
    named = recipe.task != "auto"
    asked = next((part for part in parts if named or any(part.matches(values) for values in table.columns.values())), None)
    size = asked.size(body) if asked is not None else ""
    options = {**recipe.options, "modality": {**own, "size": size}} if size else recipe.options
    return replace(recipe, options=options), table


def body_folder(recipe: Recipe) -> Path | None:
    """The folder of the recipe's body; None where it has none.

    Raises:
        BackboneNotFound: No source has it.
    """
    return None if recipe.backbone == "none" else backbone.find(recipe.backbone, recipe.options.get("backbone"))[1]
