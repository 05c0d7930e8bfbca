"""A recipe: everything that decides one run. Read from TOML or JSON, changed by flags, written back as ``recipe.json``."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from warmstart.core.errors import BadOption, FileNotFound, nearest
from warmstart.core.registry import convert, parts

FAMILIES = ("modality", "backbone", "task", "strategy", "objective")
"""Families whose chosen part takes options from the recipe: tables in TOML, ``--set strategy.head=native`` on a command line."""

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Recipe:
    """One run, resolved. Relative paths are relative to the folder the command runs in.

    ``budget`` is in seconds. ``options`` maps a family to the options of its chosen part. ``plan`` is what the budget led to: it is
    written into ``recipe.json`` and followed when that recipe runs again.

    Raises:
        BadOption: A number is out of range.
    """

    data: str = field(default="", metadata={"help": "Table, or folder of class folders, with the training rows.", "flag": False})
    test: str | None = field(default=None, metadata={"help": "Table with test rows; without it a part of DATA is set aside."})
    task: str = field(default="auto", metadata={"help": "What is asked; auto tells from the label column."})
    modality: str = field(default="auto", metadata={"help": "Kind of input; auto tells from the data."})
    column: dict[str, str] = field(default_factory=dict, metadata={"help": "Which column plays which role, e.g. text=review."})
    group: str | None = field(default=None, metadata={"help": "Column whose equal values stay on one side of a split."})
    skip_bad: bool = field(default=False, metadata={"help": "Leave out rows that cannot be used, and count them."})
    backbone: str = field(default="auto", metadata={"help": "Pre-trained body: minilm (for text), a folder, a hub id, FILE.onnx, ..."})
    unlabelled: str | None = field(
        default=None, metadata={"help": "Unlabelled data to go on pre-training with first; kept if it measurably helps."}
    )
    objective: str = field(default="auto", metadata={"help": "How to learn from unlabelled data.", "flag": False})
    views: int = field(default=0, metadata={"help": "Augmented views of each training image or recording that are learned from too."})
    strategy: str = field(default="auto", metadata={"help": "A rung to run alone; auto climbs the ladder."})
    budget: float = field(default=300.0, metadata={"help": "Time for the whole run: 90, 60s, 5m, 1.5h."})
    prefer: Literal["best", "cheapest"] = field(
        default="best", metadata={"help": "Best score, or the cheapest rung within one standard error of it."}
    )
    compatible: Literal["any", "transformers"] = field(
        default="any", metadata={"help": "Only rungs that transformers.pipeline can open, or any."}
    )
    max_length: int = field(default=256, metadata={"help": "Longest input in tokens; the rest is cut off."})
    precision: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={"help": "Number type of the body."})
    device: str = field(default="auto", metadata={"help": "Where to compute: auto, cpu, cuda or cuda:1."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})
    options: dict[str, dict[str, Any]] = field(default_factory=dict, metadata={"help": "Options of the chosen parts.", "flag": False})
    plan: dict[str, Any] = field(default_factory=dict, metadata={"help": "What the budget led to.", "flag": False})

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget) and self.budget > 0):
            raise BadOption(f"budget = {self.budget}", "expected more than 0 seconds", "give for example --budget 5m")
        if self.max_length < 8:
            raise BadOption(f"max_length = {self.max_length}", "expected at least 8 tokens", "give for example --max-length 256")
        if not 0 <= self.views <= 64:
            raise BadOption(f"views = {self.views}", "expected 0 to 64", "give for example --views 4")
        if not 0 <= self.seed < 2**32:
            raise BadOption(f"seed = {self.seed}", "expected 0 to 4294967295", "give for example --seed 0")


@dataclass(frozen=True)
class PretrainRecipe:
    """One run of ``pretrain``, resolved. ``size`` and ``budget`` (seconds) are one dial: they decide whatever the options do not.

    ``plan`` is what the dial led to: it is written into ``recipe.json`` and followed when that recipe runs again.

    Raises:
        BadOption: A number is out of range.
    """

    data: str = field(default="", metadata={"help": "What to learn from.", "flag": False})
    objective: str = field(default="", metadata={"help": "How to learn: see warmstart parts objectives."})
    validation: str | None = field(default=None, metadata={"help": "Data to validate on; without it a part of DATA is set aside."})
    modality: str = field(default="auto", metadata={"help": "Kind of input; auto tells from the objective and the data."})
    column: dict[str, str] = field(default_factory=dict, metadata={"help": "Which column plays which role, e.g. text=review."})
    skip_bad: bool = field(default=False, metadata={"help": "Leave out what cannot be used, and count it."})
    start: str | None = field(default=None, metadata={"help": "Body to go on from: a name, a folder, or a hub id.", "flag": "from"})
    size: Literal["tiny", "small", "base"] | None = field(default=None, metadata={"help": "How large a body."})
    budget: float | None = field(default=None, metadata={"help": "Time for the whole run: 90, 60s, 10m, 2h."})
    precision: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={"help": "Number type that is computed in."})
    device: str = field(default="auto", metadata={"help": "Where to compute: auto, cpu, cuda or cuda:1."})
    parallel: Literal["ddp", "fsdp"] = field(default="ddp", metadata={"help": "Processes of torchrun have all of the model, or a part."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})
    options: dict[str, dict[str, Any]] = field(default_factory=dict, metadata={"help": "Options of the chosen parts.", "flag": False})
    plan: dict[str, Any] = field(default_factory=dict, metadata={"help": "What the dial led to.", "flag": False})

    def __post_init__(self) -> None:
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise BadOption(f"budget = {self.budget}", "expected more than 0 seconds", "give for example --budget 10m")
        if not 0 <= self.seed < 2**32:
            raise BadOption(f"seed = {self.seed}", "expected 0 to 4294967295", "give for example --seed 0")


AnyRecipe = TypeVar("AnyRecipe", Recipe, PretrainRecipe)


def parse_seconds(text: str | float) -> float:
    """Seconds of ``90``, ``"90"``, ``"60s"``, ``"5m"`` or ``"1.5h"``.

    Raises:
        BadOption: The text is no duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)", str(text).strip().lower())
    if found is None or isinstance(text, bool):
        raise BadOption(
            f"{text!r} is not a duration", "a number of seconds, or one with s, m or h", "write for example 90, 60s, 5m or 1.5h"
        )
    return float(found[1]) * UNITS[found[2]]


def read(path: Path, base: AnyRecipe) -> AnyRecipe:
    """``base`` with what a ``.toml`` file says, or the ``.json`` file that a run wrote.

    Raises:
        FileNotFound: There is no such file.
        BadOption: The file is no valid recipe; says which key and why.
    """
    return from_json(path, base) if path.suffix.lower() == ".json" else from_toml(path, base)


def from_toml(path: Path, base: AnyRecipe) -> AnyRecipe:
    """``base`` with what a TOML file says. Options of a part are a table, which may name it: ``[strategy]``, ``name = "tail"``.

    Raises:
        FileNotFound: There is no such file.
        BadOption: Not TOML, an unknown key, or a value of the wrong type.
    """
    do = 'a part with options is a table: [strategy] with name = "tail"'
    return with_values(base, _parse(path, tomllib.loads, "TOML", do), f"{path}: ")


def from_json(path: Path, base: AnyRecipe) -> AnyRecipe:
    """``base`` with what a ``recipe.json`` says.

    Raises:
        FileNotFound: There is no such file.
        BadOption: Not JSON, an unknown key, or a value of the wrong type.
    """
    return with_values(base, _parse(path, json.loads, "JSON", "use the recipe.json of a model folder"), f"{path}: ")


def as_json(recipe: Recipe | PretrainRecipe) -> str:
    """The text of ``recipe.json``."""
    return json.dumps(dataclasses.asdict(recipe), indent=1, ensure_ascii=False) + "\n"


def with_sets(recipe: AnyRecipe, sets: Iterable[str]) -> AnyRecipe:
    """The recipe with ``--set`` values: ``["strategy.head=native", "seed=3", "column.text=review"]``.

    Raises:
        BadOption: Not ``key=value``, an unknown key, or a value of the wrong type.
    """
    for text in sets:
        table, option, value = split_set(text)
        recipe = with_values(recipe, {table: {option: value}} if option else {table: value}, "--set ")
    return recipe


def split_set(text: str) -> tuple[str, str, str]:
    """``"strategy.head=native"`` as ``("strategy", "head", "native")``, ``"seed=3"`` as ``("seed", "", "3")``.

    Raises:
        BadOption: Not written so.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    table, dot, option = key.partition(".")
    if not (equals and table) or bool(dot) != bool(option):
        raise BadOption(f"--set {text}", "expected key=value", "write for example --set strategy.head=native")
    return table, option, value


def with_values(recipe: AnyRecipe, values: Mapping[str, Any], where: str = "") -> AnyRecipe:
    """The recipe with these fields changed; tables are merged key by key. ``where`` begins every error ("run.toml: ").

    Raises:
        BadOption: An unknown key, a value of the wrong type, or a number out of range.
    """
    types = {f.name: str(f.type) for f in fields(recipe)}
    families = [family for family in FAMILIES if family in types]
    changed: dict[str, Any] = {}
    options = {family: dict(given) for family, given in recipe.options.items()}
    for given_key, value in values.items():
        key = "start" if given_key == "from" and "start" in types else given_key
        if key not in types:
            known = [name for name in types if name not in ("options", "plan")]
            raise BadOption(
                f"{where}no key {key!r}.{_options_named(key, families) or nearest(key, known)}",
                f"known: {', '.join(known)}",
                "correct the key",
            )
        if key == "options":
            for family, given in _table(value, where + key).items():
                options[_family(family, families, where)] = {**options.get(family, {}), **_table(given, f"{where}{key}.{family}")}
        elif key in families and isinstance(value, Mapping):
            given = dict(value)
            if "name" in given:
                changed[key] = convert(given.pop("name"), "str", f"{where}{key}.name")
            options[key] = {**options.get(key, {}), **given}
        else:
            changed[key] = _value(recipe, key, value, types[key], where)
    options = {family: given for family, given in options.items() if given}
    if options != recipe.options or any(value != getattr(recipe, key) for key, value in changed.items()):
        changed.setdefault("plan", {})  # a plan belongs to the recipe that led to it
    try:
        return dataclasses.replace(recipe, **changed, options=options)
    except BadOption as error:
        raise BadOption(where + error.given, error.expected, error.do) from None


def _options_named(key: str, families: Iterable[str]) -> str:
    """`` Did you mean 'task.beam'?`` where parts of these families have an option of exactly this name, else an empty string."""
    plural = {"modality": "modalities", "strategy": "strategies"}
    found = [f for f in families if any(key == option.name for part in parts(plural.get(f, f"{f}s")).values() for option in part.options)]
    return f" Did you mean {' or '.join(repr(f'{family}.{key}') for family in found)}?" if found else ""


def _value(recipe: Recipe | PretrainRecipe, key: str, value: Any, type_name: str, where: str) -> Any:
    if key == "budget" and not (value is None and type_name.endswith("None")):
        try:
            return parse_seconds(value)
        except BadOption as error:
            raise BadOption(f"{where}budget: {error.given}", error.expected, error.do) from None
    if key == "plan":
        return _table(value, where + key)
    if key == "column":
        given = {role: convert(name, "str", f"{where}column.{role}") for role, name in _table(value, where + key).items()}
        return {**recipe.column, **given}
    return convert(value, type_name, where + key)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadOption(f"{where} = {value!r}", "expected a table of keys and values", "correct the value")
    return dict(value)


def _family(name: str, known: Sequence[str], where: str) -> str:
    if name not in known:
        raise BadOption(f"{where}no options for {name!r}.{nearest(name, known)}", f"known: {', '.join(known)}", "correct the key")
    return name


def _parse(path: Path, loads: Callable[[str], Any], language: str, do: str) -> dict[str, Any]:
    try:
        value = loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFound(f"no recipe {path}", "a .toml or .json file", "correct the path") from None
    except (OSError, ValueError) as error:  # a decoding or a syntax error is a ValueError
        raise BadOption(f"{path} is not a readable {language} file: {error}", f"a recipe in {language}", do) from None
    return _table(value, str(path))
