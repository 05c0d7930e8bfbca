"""predict: label rows with a model, one record a row."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(
    model: Path,
    data: str | Sequence[str],
    *,
    out: Path | None = None,
    column: dict[str, str] | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    precision: str = "auto",
    quiet: bool = True,
) -> list[dict[str, Any]]:
    """Label every row of a file, or every sentence.

    Args:
        model: Folder that ``adapt`` wrote.
        data: A file or folder, ``-`` for standard input, or a list of sentences or of image files.
        out: Where to write the records (.csv, .jsonl or .parquet); None: nowhere.
        column: Role to column, where it cannot be inferred.
        skip_bad: Leave out rows that cannot be used.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` is what the model was adapted in.
        quiet: No progress.

    Returns:
        One record a row: ``row`` (its number or line in the file, where there is one), ``input`` (the file that an image came from),
        ``label``, its calibrated ``probability``, and ``probabilities`` by class.

    Raises:
        InputError: The folder, a file, a column or a row is wrong.
    """
    from warmstart.engine import model as models
    from warmstart.engine import tables

    if out is not None:
        tables.require_writable(out)
    loaded = models.load(model, device=device, precision=precision)
    if isinstance(data, str):
        rows = loaded.examples(data, column=column or {}, skip_bad=skip_bad, labelled=False)
        for reason, count in rows.left_out.items():
            print(f"note: {count} rows of {rows.source} were left out: {reason}", file=sys.stderr)
        values = rows.inputs
        records = [{"row": row, **found} for row, found in zip(rows.rows, loaded.records(values, quiet=quiet), strict=True)]
    else:
        values = loaded.inputs(list(data), column=column, skip_bad=skip_bad)
        records = loaded.records(values, quiet=quiet)
    named = [loaded.modality.where(value) for value in values]
    records = [{**({"input": name} if name else {}), **record} for name, record in zip(named, records, strict=True)]
    if out is not None:
        tables.write_records(out, [_written(loaded.named(value), record) for value, record in zip(values, records, strict=True)])
    return records


def _written(named: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A record as a file has it: its row, what was read, what was predicted."""
    row = {"row": record["row"]} if "row" in record else {}
    return {**row, **named, **{key: value for key, value in record.items() if key != "input"}}
