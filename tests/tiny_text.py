"""Labelled sentences as files; the tiny text encoder that can learn them is in ``warmstart.testing``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart.testing import LABELS, NOISE, WORDS, rows, sentence, tiny_backbone

__all__ = ["LABELS", "NOISE", "WORDS", "rows", "sentence", "tiny_backbone", "write_csv"]


def write_csv(path: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as a CSV file, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path
