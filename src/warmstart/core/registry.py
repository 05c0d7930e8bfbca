"""Parts by family and name. A file in ``parts/<family>/`` is a part; so is an entry point in the group ``warmstart.<family>``.

Names, help and options are read with ``ast``, so listing parts imports nothing.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from warmstart.core.errors import BadOption, UnknownPart, nearest

PARTS = Path(__file__).parent.parent / "parts"


@dataclass(frozen=True)
class OptionHelp:
    """One option of a part: its name, type and default as written, and its one-line meaning."""

    name: str
    type: str
    default: str
    help: str


@dataclass(frozen=True)
class PartHelp:
    """What is known of a part without importing it."""

    family: str
    name: str
    module: str
    help: str
    options: tuple[OptionHelp, ...]


def families() -> list[str]:
    """Every family of parts."""
    return sorted(p.name for p in PARTS.iterdir() if p.is_dir() and not p.name.startswith("_"))


@lru_cache(maxsize=64)
def parts(family: str) -> dict[str, PartHelp]:
    """Every part of a family by name, from the package and from installed plug-ins.

    Raises:
        UnknownPart: There is no such family.
    """
    if family not in families():
        raise UnknownPart(
            f"no family named {family!r}.{nearest(family, families())}", f"known: {', '.join(families())}", "see: warmstart parts"
        )
    found = {p.stem: f"warmstart.parts.{family}.{p.stem}" for p in sorted((PARTS / family).glob("*.py")) if not p.stem.startswith("_")}
    for point in importlib.metadata.entry_points(group=f"warmstart.{family}"):
        found.setdefault(point.name, point.value.split(":")[0])
    return {name: _read(family, name, module) for name, module in sorted(found.items())}


def module(family: str, name: str) -> Any:
    """Import the module of a part.

    Raises:
        UnknownPart: No part of that name in the family.
    """
    known = parts(family)
    name = spelled(family, name)
    if name not in known:
        singular = {"strategies": "strategy", "modalities": "modality"}.get(family, family.removesuffix("s"))
        raise UnknownPart(
            f"no {singular} named {name!r}.{nearest(name, known) or _meant(name, known)}",
            f"known: {', '.join(known)}",
            f"see: warmstart parts {family}",
        )
    return importlib.import_module(known[name].module)


def _meant(word: str, known: Mapping[str, PartHelp]) -> str:
    """`` Did you mean 'audio'?`` for ``sound``, the first word of what is said of that part; else an empty string."""
    plain = word.strip().lower().removesuffix("s")
    found = [name for name, part in known.items() if re.split(r"\W", part.help.lower())[0].removesuffix("s") == plain]
    return f" Did you mean {found[0]!r}?" if found and plain else ""


def spelled(family: str, name: str) -> str:
    """A part's own name for how it was typed: ``speech-recognition`` is ``speech_recognition``."""
    plain = name.replace("-", "_")
    return plain if plain in parts(family) else name


def create(family: str, name: str, *, options: Mapping[str, Any] | None = None) -> Any:
    """The part ``name`` with these options (values may be strings, as a command line gives them).

    Raises:
        UnknownPart: No part of that name.
        BadOption: An option the part does not have, or a value of the wrong type.
    """
    name = spelled(family, name)
    part = module(family, name)
    kwargs = {}
    for key, value in (options or {}).items():
        kwargs[key] = _convert(parts(family)[name], key, value)
    return part.Part(part.Options(**kwargs))


def _convert(part: PartHelp, key: str, value: Any) -> Any:
    known = {o.name: o for o in part.options}
    if key not in known:
        raise BadOption(
            f"{part.name} has no option {key!r}.{nearest(key, known)}",
            f"known: {', '.join(known) or 'none'}",
            f"see: warmstart parts {part.family} {part.name}",
        )
    return convert(value, known[key].type, f"{part.name}.{key}")


def convert(value: Any, type_name: str, where: str) -> Any:
    """``value`` as the simple type written ``type_name``: ``int``, ``float``, ``bool``, ``str``, each possibly ``| None``, or a Literal.

    Raises:
        BadOption: The value is not of that type, or a number that is not finite.
    """
    optional = type_name.endswith("| None")
    base = type_name.removesuffix("| None").strip()
    if optional and (value is None or str(value).lower() in ("none", "")):
        return None
    text = str(value).strip()
    try:
        if base == "bool":
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if base == "int":
            return int(text)
        if base == "float":
            number = float(text)
            if math.isfinite(number):
                return number
            type_name = f"a finite number ({type_name})"
        if base.startswith("Literal["):
            choices = ast.literal_eval(base.removeprefix("Literal").strip())
            return {str(c): c for c in choices}[text]
        if base == "str" and isinstance(value, str):
            return value
    except (KeyError, ValueError):
        pass
    raise BadOption(f"{where} = {value!r}", f"expected {type_name}", "correct the value")


def check_ranges(part: str, options: Any, wanted: Mapping[str, tuple[bool, str]]) -> None:
    """``wanted`` maps an option to whether its value will do, and to what is expected of it.

    Raises:
        BadOption: One will not do; names those alone.
    """
    wrong = {name: expected for name, (fine, expected) in wanted.items() if not fine}
    if wrong:
        given = ", ".join(f"{part}.{name} = {getattr(options, name)}" for name in wrong)
        expected = next(iter(wrong.values())) if len(wrong) == 1 else ", ".join(f"{name} {text}" for name, text in wrong.items())
        raise BadOption(given, f"expected {expected}", "correct the value" + "s" * (len(wrong) > 1))


def _read(family: str, name: str, module_name: str) -> PartHelp:
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:  # not even the package that it should lie in
        spec = None
    if spec is None or spec.origin is None:
        raise UnknownPart(
            f"the plug-in {name!r} of {family} names the module {module_name!r}, which is not there", do="reinstall the plug-in"
        )
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(source)
    doc = (ast.get_docstring(tree) or "").split("\n")[0]
    options: tuple[OptionHelp, ...] = ()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Options":
            options = tuple(_options(node))
    return PartHelp(family, name, module_name, doc, options)


def _options(node: ast.ClassDef) -> list[OptionHelp]:
    """Fields of the dataclass; the string literal below a field is its help."""
    found: list[OptionHelp] = []
    for here, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                text = " ".join(after.value.value.split())
            default = ast.unparse(here.value) if here.value is not None else ""
            found.append(OptionHelp(here.target.id, ast.unparse(here.annotation), default, text))
    return found
