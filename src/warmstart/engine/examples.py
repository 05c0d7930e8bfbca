"""Labelled and unlabelled examples: which column plays which role, and which rows can be used."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart.core import registry
from warmstart.core.errors import BadOption, ColumnNotFound, DataError, nearest
from warmstart.core.protocols import Modality, Task
from warmstart.engine import boxes, sources
from warmstart.engine.draft import Table, name_few

SURE_LABEL_NAMES = ("label", "labels", "target", "targets", "class")
LIKELY_LABEL_NAMES = (
    *("category", "categories", "intent", "sentiment", "emotion", "topic", "genre", "polarity", "stars", "rating", "score"),
    *("tag", "tags", "y", "output", "gold", "gold_label", "label_text", "language", "spam", "toxic", "stance", "relation"),
)
MAX_LISTED = 20
NO_GROUP = "missing group"


@dataclass(frozen=True)
class Examples:
    """Rows that can be used. ``inputs[i]``, ``targets[i]`` and ``groups[i]`` come from row (or line) ``rows[i]`` of ``source``.

    ``targets`` are raw label values (None: there is no label column). ``columns`` maps a role to its column; ``left_out`` maps a
    reason to a count, ``named`` to the first few by name; ``notes`` are sentences for the user about what was inferred or assumed.
    """

    inputs: list[tuple[Any, ...]]
    targets: list[Any] | None
    groups: list[Any] | None
    rows: list[int]
    source: str
    columns: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)


def read_examples(
    source: Any,
    *,
    modality: Modality,
    task: Task | None,
    given: Mapping[str, str],
    group: str | None,
    skip_bad: bool,
    labelled: bool,
    body: Path | None = None,
    may_be_empty: bool = False,
) -> Examples:
    """Read ``source`` (anything ``read_table`` takes), settle which column plays which role, and check every row.

    Args:
        source: A path, a frame, a list, ...
        modality: Knows its roles, and which inputs are usable.
        task: Knows which labels are usable; with None every label that is not missing is.
        given: Role (one of the modality's, or ``label``) to column; kept as it is, the rest is inferred.
        group: Column whose equal values must stay on one side of every split.
        skip_bad: Leave unusable rows out and count them, instead of raising.
        labelled: Whether labels are needed; if not, those that are found are kept unchecked, and given columns for them may be absent.
        body: Folder of the body that the rows are for, which the modality may fit them to.
        may_be_empty: Whether ``skip_bad`` may leave no row at all: the source is a part of a larger one.

    Raises:
        BadOption: ``given`` names a role that does not exist.
        ColumnNotFound: A given column does not exist, or one cannot be inferred.
        DataError: A row is unusable, or none is left.
        InputError: Whatever ``read_table`` raises.
    """
    table = sources.opened(source, modality, skip_bad=skip_bad)
    given = dict(given) | ({"group": group} if group else {})
    if not labelled:
        given = {role: column for role, column in given.items() if role in modality.roles or column in table.columns}
    _check_given(table, given, (*modality.roles, "label", "group"))
    columns = _roles(table, modality, given, task, labelled=labelled)
    roles = [role for role in modality.roles if role in columns]
    raw = list(zip(*(table.columns[columns[role]] for role in roles), strict=True))
    inputs = modality.load(raw, folder=sources.folder_of(table.source), body=body)
    targets = table.columns[columns["label"]] if "label" in columns else None
    load = getattr(task, "load", None)
    if targets is not None and load is not None:
        targets = load(targets, folder=sources.folder_of(table.source))
    groups = table.columns[columns["group"]] if "group" in columns else None
    kept, left_out, named = _usable(
        table, modality, task, inputs, targets if labelled else None, groups, skip_bad=skip_bad, may_be_empty=may_be_empty
    )
    inferred = [role for role in columns if role not in given]
    notes = [*table.notes, *modality.notes([inputs[i] for i in kept]), *boxes.counted([targets[i] for i in kept] if targets else ())]
    if inferred:
        notes.append(", ".join(f"{role} = {columns[role]!r}" for role in inferred) + " (inferred; --column overrides)")
    return Examples(
        inputs=[inputs[i] for i in kept],
        targets=None if targets is None else [targets[i] for i in kept],
        groups=None if groups is None else [groups[i] for i in kept],
        rows=[table.rows[i] for i in kept],
        source=table.source,
        columns=columns,
        left_out=left_out,
        notes=notes,
        named=named,
    )


def summarise(train: Examples, test: Examples | None, modality: Modality) -> tuple[int, int, int]:
    """Duplicates, conflicts and leaked rows, as ``DataSummary`` defines them; case and white space do not tell texts apart."""
    labels: dict[bytes, str] = {}
    conflicting: set[bytes] = set()
    for i, value in enumerate(train.inputs):
        label = "" if train.targets is None else _label_key(train.targets[i])
        key = _content_key(value, modality)
        if labels.setdefault(key, label) != label:
            conflicting.add(key)
    leaked = 0 if test is None else sum(_content_key(value, modality) in labels for value in test.inputs)
    return len(train.inputs) - len(labels), len(conflicting), leaked


def _content_key(value: tuple[Any, ...], modality: Modality) -> bytes:
    normal = tuple(" ".join(v.casefold().split()) if isinstance(v, str) else v for v in value)
    return hashlib.blake2b(modality.content(normal), digest_size=16).digest()


def _label_key(label: Any) -> str:
    return "|".join(sorted(map(str, label))) if isinstance(label, (list, tuple)) else str(label)


# Columns ----------------------------------------------------------------------------------------------------------------------------


def _check_given(table: Table, given: Mapping[str, str], known_roles: Sequence[str]) -> None:
    for role, column in given.items():
        if role not in known_roles:
            raise BadOption(f"no role named {role!r}.{nearest(role, known_roles)}", f"known: {', '.join(known_roles)}", "correct it")
        if column not in table.columns:
            raise ColumnNotFound(
                f"{table.source} has no column {column!r}.{nearest(column, table.columns)}", _listed(table.columns), "correct the name"
            )


def _listed(columns: Mapping[str, Any]) -> str:
    more = f" and {len(columns) - MAX_LISTED} more" if len(columns) > MAX_LISTED else ""
    return f"columns: {', '.join(map(repr, list(columns)[:MAX_LISTED]))}{more}"


def _roles(table: Table, modality: Modality, given: Mapping[str, str], task: Task | None, *, labelled: bool) -> dict[str, str]:
    """Role to column: the label by its name, then the inputs, then, where one is needed, the label by its few distinct values."""
    free = {name: values for name, values in table.columns.items() if name not in given.values()}
    label = given.get("label") or _label_by_name(table, free, _structured_names(modality, task), must_be_clear=labelled)
    inputs_given = {role: column for role, column in given.items() if role in modality.roles}
    candidates = {name: table.columns[name] for name in (*free, *inputs_given.values()) if name != label}
    columns = modality.infer(candidates, inputs_given)
    if label is None and labelled:
        label = _label_by_values(table, {name: values for name, values in free.items() if name not in columns.values()})
    return {**columns, **({"label": label} if label is not None else {}), **({"group": given["group"]} if "group" in given else {})}


def _structured_names(modality: Modality, task: Task | None) -> tuple[str, ...]:
    """Names that columns of labels have for sure: those of the task first, or after all others those of the modality's own tasks."""
    if task is not None:
        return (*getattr(task, "column_names", ()), *SURE_LABEL_NAMES)
    parts = [registry.module("tasks", name).Part for name in registry.parts("tasks")]
    own = [name for part in parts if getattr(part, "modality", "") == modality.name for name in getattr(part, "column_names", ())]
    return (*SURE_LABEL_NAMES, *own)


def _label_by_name(table: Table, free: Mapping[str, Sequence[Any]], sure: Sequence[str], *, must_be_clear: bool) -> str | None:
    by_name = {name.strip().casefold(): name for name in free}
    for name in sure:
        if name in by_name:
            return by_name[name]
    likely = [by_name[name] for name in LIKELY_LABEL_NAMES if name in by_name]
    if len(likely) > 1 and must_be_clear:
        raise _ask_for_label(table, f"the label could be {' or '.join(map(repr, likely))}")
    return likely[0] if len(likely) == 1 else None


def _label_by_values(table: Table, free: Mapping[str, Sequence[Any]]) -> str:
    """The only column whose values repeat: at least two different ones, each four times on average."""
    distinct = {name: len({_label_key(v) for v in values}) for name, values in free.items()}
    repeating = [name for name, n in distinct.items() if 2 <= n <= max(2, len(table.rows) // 4)]
    if len(repeating) == 1:
        return repeating[0]
    if repeating:
        raise _ask_for_label(table, f"the label could be {' or '.join(map(repr, repeating))}")
    raise _ask_for_label(table, "no column looks like a label")


def _ask_for_label(table: Table, why: str) -> ColumnNotFound:
    return ColumnNotFound(f"{table.source}: {why}", _listed(table.columns), "name it: --column label=NAME")


# Rows -------------------------------------------------------------------------------------------------------------------------------


def _usable(
    table: Table,
    modality: Modality,
    task: Task | None,
    inputs: Sequence[tuple[Any, ...]],
    targets: Sequence[Any] | None,
    groups: Sequence[Any] | None,
    *,
    skip_bad: bool,
    may_be_empty: bool,
) -> tuple[list[int], dict[str, int], dict[str, list[str]]]:
    """Indices of the rows that can be used, and how many cannot, by reason, with the first few of them."""
    kept: list[int] = []
    named = {reason: list(names) for reason, names in table.named.items()}
    reasons: Counter[str] = Counter()
    first_bad = wanted = ""
    check_label = task.check if task is not None else _missing
    check_pair = getattr(task, "check_pair", None)
    for i, value in enumerate(inputs):
        reason = modality.check(value)
        if reason is None and targets is not None:
            reason = check_label(targets[i])
            if reason is None and check_pair is not None:
                reason = check_pair(value, targets[i])
        if reason is None and groups is not None and _missing(groups[i]):
            reason = NO_GROUP
        if reason is None:
            kept.append(i)
            continue
        of_label = targets is not None and modality.check(value) is None
        bad_target = getattr(targets[i], "name", "") if of_label and targets is not None else ""
        where = bad_target or modality.where(value)
        first_bad = first_bad or f"{table.source}, {table.unit} {table.rows[i]}: {where and f'{where}: '}{reason}"
        wanted = wanted or (getattr(task, "wanted", "") if of_label and reason != NO_GROUP else "") or "usable rows"
        reasons[counted_as(reason)] += 1
        name_few(named, counted_as(reason), [where or f"{table.unit} {table.rows[i]}"])
    if reasons and (not skip_bad or not (kept or may_be_empty)):
        counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        advice = "correct them, or leave such rows out with --skip-bad" if kept else "check which columns were read: --column ROLE=NAME"
        if len(inputs) == 1 and modality.where(inputs[0]) and modality.check(inputs[0]):
            advice = "give a file that can be read"
        raise DataError(f"{first_bad} (of {len(inputs):,} rows: {counted})", wanted, advice)
    return kept, dict(Counter(table.left_out) + reasons), named


def counted_as(reason: str) -> str:
    """What rows that are bad for a reason are counted by: what stands behind its colon is of one row alone."""
    return reason.partition(": ")[0]


def _missing(label: Any) -> str | None:
    is_nan = isinstance(label, float) and label != label
    return "missing label" if label is None or is_nan or (isinstance(label, str) and not label.strip()) else None
