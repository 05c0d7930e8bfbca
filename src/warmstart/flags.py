"""Command-line flags made from the fields of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_type_hints

import click

from warmstart.core.errors import BadOption
from warmstart.core.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """The flags that every command has."""
    json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, everything else on stderr.")
    debug_flag = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error arose.")
    return json_flag(debug_flag(command))


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
