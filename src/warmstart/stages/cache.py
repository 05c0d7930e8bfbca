"""cache: show the stored activations, clear them, or limit the space they take."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

from warmstart.core.errors import BadOption

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def run(action: str = "show", size: str | None = None) -> dict[str, Any]:
    """Do ``show``, ``clear`` or ``limit``, and give the state afterwards as plain JSON types.

    Raises:
        BadOption: ``size`` is no number of bytes.
    """
    limit = parse_bytes(size) if size is not None else None
    from warmstart.engine.activations import Store

    store = Store()
    freed = store.clear() if action == "clear" else 0
    if limit is not None:
        store.set_limit(limit)
    shelves = store.usage()
    return {
        "folder": str(store.root),
        "bytes": sum(shelf.bytes for shelf in shelves),
        "limit_bytes": store.limit,
        "freed_bytes": freed,
        "shelves": [dataclasses.asdict(shelf) for shelf in shelves],
    }


def parse_bytes(text: str) -> int:
    """Bytes of ``500MB``, ``20GB`` (powers of ten), ``20GiB`` (powers of two) or a plain number.

    Raises:
        BadOption: The text is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if found is None or found[2] not in UNITS:
        raise BadOption(f"{text!r} is not a size", "a number with MB, GB or TB", "write for example 500MB or 20GB")
    return int(float(found[1]) * UNITS[found[2]])


def as_text(state: Mapping[str, Any]) -> str:
    """The state as a person reads it."""
    lines = [f"{state['folder']}: {state['bytes'] / 1e6:,.1f} MB of at most {state['limit_bytes'] / 1e9:,.1f} GB"]
    if state["freed_bytes"]:
        lines.append(f"freed {state['freed_bytes'] / 1e6:,.1f} MB")
    for shelf in state["shelves"]:
        about, days = shelf["about"], (time.time() - shelf["last_used"]) / 86400
        name = f"{about.get('backbone', shelf['digest'])[:12]} {about.get('what', '?')} {about.get('precision', '')}"
        lines.append(f"  {name:<32} {shelf['examples']:>9,} examples {shelf['bytes'] / 1e6:>9,.1f} MB  used {days:.1f} days ago")
    return "\n".join(lines)
