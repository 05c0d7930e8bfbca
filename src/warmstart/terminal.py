"""What commands print: tables, records, texts, reports; JSON where it was asked for."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from warmstart.core.report import PretrainReport, Report


def print_json(value: Any) -> None:
    """One JSON value in one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns; the last one may be of any length."""
    whole = list(rows)
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for row in whole:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_report(report: Report | PretrainReport, folder: Path | None, as_json: bool) -> None:
    """A report as text, with its warnings on stderr and where its page lies, or as the JSON contract."""
    if as_json:
        print_json(report.contract())
        return
    for warning in report.warnings:
        click.echo(f"note: {warning}", err=True)
    click.echo(report.as_text())
    if folder is not None:
        click.echo(f"\nReport: {folder / 'report.html'}")


def print_piece(piece: str) -> None:
    """A piece of a text, at once."""
    click.echo(piece, nl=False)
    sys.stdout.flush()


def print_texts(records: Iterable[Mapping[str, Any]], out: Path | None, as_json: bool, *, told: bool) -> None:
    """What was written, where it has not been streamed yet."""
    count = 0
    for record in records:
        count += 1
        for note in record["notes"]:
            click.echo(f"note: {note}", err=True)
        if out is None and as_json:
            print_json(record)
        elif out is None and not told:
            click.echo(record["prompt"] + record["text"])
    if out is not None:
        print_json({"out": str(out), "rows": count}) if as_json else click.echo(f"{count:,} texts: {out}")


def _told(record: Mapping[str, Any]) -> str:
    """A label, the labels of a row, or whatever else was predicted."""
    found = record["label"] if "label" in record else record["prediction"]
    return found if isinstance(found, str) else " | ".join(found) if "label" in record else json.dumps(found, ensure_ascii=False)


def print_predictions(records: Iterable[Mapping[str, Any]], sentences: Sequence[str] | None) -> None:
    """A table of probability, label and sentence, aligned by blocks so that it streams."""
    numbered = enumerate(records)
    while block := list(itertools.islice(numbered, 200)):
        print_table(
            (
                f"{record['probability']:.3f}" if "probability" in record else "",
                _told(record),
                record.get("input") or (" ".join(sentences[i].split()) if sentences else f"row {record.get('row', i + 1)}"),
            )
            for i, record in block
        )
