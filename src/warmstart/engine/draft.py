"""What every table reader fills: columns, where each record was, and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from warmstart.core.errors import DataError, FileUnreadable

MAX_COLUMNS = 10_000

NAMED = 5
"""Of what is left out for one reason, so many are named."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length. ``rows`` holds where each record begins in the source, counted from 1 in units of ``unit``.

    ``left_out`` maps a reason to the number of records that ``skip_bad`` left out, ``named`` to the first few of them; ``notes`` are
    sentences about what was assumed.
    """

    columns: dict[str, list[Any]]
    rows: list[int]
    source: str
    unit: Literal["line", "row"] = "row"
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> Table:
        """Rows ``start`` to ``stop``; what was left out or noted belongs to the first part."""
        columns = {name: values[start:stop] for name, values in self.columns.items()}
        whole = (self.left_out, self.notes, self.named) if start == 0 else ({}, [], {})
        return Table(columns, self.rows[start:stop], self.source, self.unit, *whole)


@dataclass
class Draft:
    """A table while it is read: bad records are counted, and the first of them is kept for the error."""

    source: str
    unit: Literal["line", "row"] = "line"
    columns: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)
    first_bad: str = ""

    def add(self, row: int, record: Mapping[str, Any]) -> None:
        for name in record:
            if name not in self.columns:
                if len(self.columns) >= MAX_COLUMNS:
                    raise FileUnreadable(
                        f"{self.source} has more than {MAX_COLUMNS:,} different keys", "the same keys in every record", "rename them"
                    )
                self.columns[name] = [None] * len(self.rows)
        for name, values in self.columns.items():
            values.append(record.get(name))
        self.rows.append(row)

    def reject(self, row: int, reason: str, detail: str = "") -> None:
        self.first_bad = self.first_bad or f"{self.source}, {self.unit} {row}: {reason}{detail and f' ({detail})'}"
        self.left_out[reason] += 1
        name_few(self.named, reason, [f"{self.unit} {row}"])

    def finish(self, *, skip_bad: bool) -> Table:
        n_bad = self.left_out.total()
        if self.left_out and not skip_bad:
            more = f", and {n_bad - 1:,} more such {self.unit}s" if n_bad > 1 else ""
            advice = "correct it, or leave such rows out with --skip-bad"
            if "not UTF-8" in self.left_out:
                advice = f"re-save it as UTF-8, e.g.: iconv -f WINDOWS-1252 -t UTF-8 {self.source} > utf8-{Path(self.source).name}"
            expected = "one JSON object a line, or one array of objects" if "broken JSON" in self.left_out else "readable records"
            raise FileUnreadable(self.first_bad + more, expected, advice)
        if not self.rows:
            why = f"every one of its {n_bad:,} rows is bad: {self.first_bad}" if n_bad else f"{self.source} has no rows"
            raise DataError(why, "at least one row", "give a table with rows")
        return Table(self.columns, self.rows, self.source, self.unit, dict(self.left_out), self.notes, self.named)


def name_few(named: dict[str, list[str]], reason: str, names: Sequence[str]) -> None:
    """Add the names of what is left out for a reason, as long as they are few."""
    found = named.setdefault(reason, [])
    found.extend(names[: NAMED - len(found)])


def left_out_notes(source: str, left_out: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each reason: how many rows of ``source`` were left out, and the first few of them by name."""
    found = []
    for reason, count in left_out.items():
        names = [name.removeprefix(f"{source}/").removeprefix(f"{source}, ") for name in named.get(reason, ())]
        names += [f"and {count - len(names):,} more"] if names and count > len(names) else []
        shown = f" ({', '.join(names)})" if names else ""
        found.append(f"{count:,} {'row' if count == 1 else 'rows'} of {source} {'was' if count == 1 else 'were'} left out: {reason}{shown}")
    return found


def require_distinct(names: Sequence[str], source: str) -> None:
    """Raise FileUnreadable when two columns share a name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileUnreadable(f"{source} has two columns named {twice[0]!r}", "a different name for each column", "rename one of them")
