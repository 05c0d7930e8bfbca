"""Command-line flags made from the fields of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click

from warmstart.core import recipe as recipes
from warmstart.core.errors import BadOption
from warmstart.core.recipe import AnyRecipe, Recipe

Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """The flags that every command has."""
    json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, everything else on stderr.")
    debug_flag = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error arose.")
    return json_flag(debug_flag(command))


def run_flags(*, of: type, out: str, example: str) -> Callable[[Command], Command]:
    """The flags of a command that runs a recipe of the class ``of``: where it writes, the recipe and what changes it, and the common ones.

    ``out`` is the help of ``--out``, ``example`` a value of ``--set``.
    """
    recipe_help = "Recipe to start from (.toml, or a .json that a run wrote)."
    flags = [
        click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help=out),
        recipe_flags(of=of),
        click.option("--recipe", "file", type=click.Path(path_type=Path), help=recipe_help),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=f"Any recipe key, e.g. {example}."),
        click.option("--force", is_flag=True, help="Overwrite FOLDER."),
        click.option("--quiet", is_flag=True, help="No progress."),
        common,
    ]

    def add(command: Command) -> Command:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return add


def recipe(
    default: AnyRecipe, *, data: str | None, file: Path | None, sets: Iterable[str], flags: Mapping[str, Any], expected: str
) -> AnyRecipe:
    """The recipe of a command: the file's, or ``default``, changed by ``--set`` and then by the other flags.

    Raises:
        BadOption: A key or a value is wrong, or nobody names the data (``expected`` says what they may be).
    """
    base = recipes.with_sets(recipes.read(file, default) if file else default, sets)
    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
    found = recipes.with_values(base, {**given, "column": columns(given.get("column", ())), **({"data": data} if data else {})})
    if not found.data:
        raise BadOption("no DATA was given", expected, f"see: {click.get_current_context().command_path} --help")
    return found


def recipe_flags(*names: str, of: type = Recipe) -> Callable[[Command], Command]:
    """Flags made from these fields of a recipe (all that may be flags, where none is named); a flag that is not given is None, so that
    a recipe file can decide."""

    def add(command: Command) -> Command:
        for field in reversed(dataclasses.fields(of)):
            if field.name in names or (not names and field.metadata.get("flag", True)):
                command = _flag(field, get_type_hints(of)[field.name])(command)
        return command

    return add


def _flag(field: dataclasses.Field[Any], hint: Any) -> Callable[[Command], Command]:
    name = f"--{field.metadata.get('flag', field.name).replace('_', '-')}"
    text = field.metadata["help"]
    if hint is bool:
        return click.option(name, field.name, is_flag=True, help=text)
    if field.name == "column":
        return click.option(name, field.name, multiple=True, metavar="ROLE=NAME", help=text)
    if field.default not in (None, ""):
        text += f" [default: {field.default:g}]" if hint is float else f" [default: {field.default}]"
    choices = [choice for kind in (hint, *get_args(hint)) for choice in get_args(kind) if isinstance(choice, str)]
    kind: Any = click.INT if hint is int else click.Choice(choices) if choices else click.STRING
    return click.option(name, field.name, type=kind, default=None, help=text)


def columns(given: Iterable[str]) -> dict[str, str]:
    """``text=review`` as ``{"text": "review"}``."""
    pairs = [text.partition("=") for text in given]
    for role, equals, column in pairs:
        if not (role and equals and column):
            raise BadOption(f"--column {role}{equals}{column}", "expected ROLE=NAME", "write for example --column text=review")
    return {role: column for role, _, column in pairs}
