"""Folders of bodies that are made once from what the user names (a file, an architecture), and kept beside the activation store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmstart.engine import activations, store

FORMAT = 1
"""Raised when the same request would make another folder."""


def folder(origin: str, *, licence: str, files: list[Path], asked: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder for these files and this request; ``make`` writes it where it is not there yet, but for the README.

    ``origin`` is the name of the file or the architecture, ``licence`` that of its weights.
    """
    name = Path(origin).stem.replace(":", "-")
    digest = hashlib.sha256(json.dumps([FORMAT, {**asked, "licence": licence}], sort_keys=True, default=str).encode())
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    found = activations.default_root().parent / "bodies" / f"{name}-{digest.hexdigest()[:16]}"
    if not (found / "config.json").is_file():
        partial = found.with_name(f".{found.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            make(partial)
            store.write_text(partial / "README.md", f"---\nlicense: {licence}\n---\n\nMade from `{origin}`.\n")
            shutil.rmtree(found, ignore_errors=True)
            partial.rename(found)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return found
