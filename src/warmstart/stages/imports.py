"""models import: a plain state dict becomes a body (and where it has a head, a model), checked against the state dict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.errors import BadOption
from warmstart.core.recipe import split_set

if TYPE_CHECKING:
    from warmstart.engine.importing import Imported

TABLE = "importer"


def run(
    file: Path,
    *,
    architecture: str,
    out: Path,
    classes: Path | None = None,
    licence: str = "unknown",
    origin: str = "",
    options: dict[str, Any] | None = None,
    force: bool = False,
) -> Imported:
    """Convert a state dict; see ``engine.importing.run``."""
    from warmstart.engine import importing

    return importing.run(
        file, architecture=architecture, out=out, classes=classes, licence=licence, origin=origin, options=options, force=force
    )


def options(sets: Iterable[str]) -> dict[str, str]:
    """``["importer.padding=same"]`` as ``{"padding": "same"}``.

    Raises:
        BadOption: Not written so.
    """
    found = {}
    for text in sets:
        table, option, value = split_set(text)
        if table != TABLE or not option:
            raise BadOption(f"--set {text}", f"{TABLE}.KEY=VALUE", f"write for example --set {TABLE}.padding=same")
        found[option] = value
    return found
