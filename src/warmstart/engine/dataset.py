"""The labelled rows of one run: training rows, test rows that are touched once, labels, and what is worth a warning."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core import registry
from warmstart.core.errors import BadOption, DataError
from warmstart.core.protocols import Modality, Task
from warmstart.core.recipe import Recipe
from warmstart.core.report import DataSummary
from warmstart.core.words import counted
from warmstart.engine import answers, balance, examples, splits, variants
from warmstart.engine.draft import left_out_notes, name_few
from warmstart.engine.examples import Examples
from warmstart.engine.workbench import Workbench

TEST_ROWS = 400
"""With fewer rows none are set aside for a test: all are needed for cross-validation, whose estimate is then reported."""

TEST_FRACTION, TEST_ROWS_MAX = 0.2, 2000


@dataclass(frozen=True)
class Dataset:
    """``targets`` belong to ``train``, ``test_targets`` to ``test``; ``hash`` is that of all rows as they are used."""

    train: Examples
    test: Examples | None
    targets: NDArray[Any]
    test_targets: NDArray[Any] | None
    labels: tuple[str, ...]
    task: Task
    modality: Modality
    split: str
    hash: str
    warnings: list[str]


def read(recipe: Recipe, data: Any = None, test: Any = None, *, body: Path | None = None) -> Dataset:
    """Read and check the rows that a recipe names (or that are given as objects), and set test rows aside.

    ``body`` is the folder of the body that the rows are for.

    Raises:
        InputError: A file, column, row or label is wrong.
    """
    modality: Modality = registry.create("modalities", recipe.modality, options=recipe.options.get("modality"))
    task = None if recipe.task == "auto" else registry.create("tasks", recipe.task, options=recipe.options.get("task"))
    given = dict(recipe.column)
    if task is not None and answers.is_structured(task) and answers.structured(task).modality != modality.name:
        wanted = answers.structured(task).modality
        given_task = f"--task {task.name} for {modality.name}"
        raise BadOption(given_task, f"data of the modality {wanted}", f"give a column of {wanted} files, or leave --task out")

    def rows_of(source: Any, columns: Mapping[str, str], asked: Task | None) -> Examples:
        return examples.read_examples(
            source, modality=modality, task=asked, given=columns, group=recipe.group, skip_bad=recipe.skip_bad, labelled=True, body=body
        )

    everything = rows_of(recipe.data if data is None else data, given, task)
    if task is None:
        task = _task_of(everything, recipe)
        everything = _usable(everything, task, modality, recipe)
    if body is not None and hasattr(task, "check_body"):
        task.check_body(body)
    found = None
    if test is not None or recipe.test is not None:
        columns = {role: name for role, name in everything.columns.items() if role != "group"}
        found = examples.read_examples(
            recipe.test if test is None else test,
            modality=modality,
            task=task,
            given=columns,
            group=None,
            skip_bad=recipe.skip_bad,
            labelled=True,
            body=body,
        )
    variants.check(recipe.views, modality, getattr(task, "link", ""))
    train, held, split = _split(everything, found, task, recipe)
    assert train.targets is not None  # noqa: S101 - labelled rows were asked for
    labels = task.labels(train.targets)
    test_targets = None if held is None or held.targets is None else task.encode(held.targets, labels)
    targets = task.encode(train.targets, labels)
    warnings = [*train.notes, *_warnings(train, held, task, labels)]
    return Dataset(train, held, targets, test_targets, labels, task, modality, split, _hash(modality, train, held), warnings)


def summary(rows: Dataset, bench: Workbench | None) -> DataSummary:
    """What was read, for the report; lengths in tokens only where the backbone's tokenizer was used."""
    unit = rows.modality.unit
    duplicates, conflicts, leaked = examples.summarise(rows.train, rows.test, rows.modality)
    counts = _counts(rows)
    lengths, mean, truncated = [], 0.0, 0
    extents = [rows.modality.extent(value) for value in rows.train.inputs]
    own = np.array([extent for extent in extents if extent is not None])
    if len(own) or bench is not None:
        sizes = own if len(own) or bench is None else bench.lengths
        edges = np.unique(np.linspace(sizes.min(), sizes.max() + 1, 21).astype(np.int64))
        histogram, _ = np.histogram(sizes, bins=edges) if len(edges) > 1 else (np.array([len(sizes)]), None)
        edges = edges if len(edges) > 1 else np.array([sizes.min(), sizes.min() + 1])
        lengths = [(int(a), int(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], histogram, strict=True)]
        lengths = [] if len(own) and own.min() == own.max() else lengths  # nothing to draw: all images have one size
        mean = float(sizes.mean())
        truncated = 0 if len(own) or bench is None else int((sizes >= bench.encoder.max_length).sum())
    return DataSummary(
        source=rows.train.source,
        columns=rows.train.columns,
        rows_train=len(rows.train.inputs),
        rows_test=0 if rows.test is None else len(rows.test.inputs),
        labels=dict(counts.most_common()),
        split=rows.split,
        lengths=lengths,
        tokens_mean=mean,
        truncated=truncated,
        duplicates=duplicates,
        conflicts=conflicts,
        leaked=leaked,
        unit=unit,
        left_out=dict(Counter(rows.train.left_out) + Counter(rows.test.left_out if rows.test is not None else {})),
    )


def _counts(rows: Dataset) -> Counter[str]:
    """How often each label is among the training rows; of a structured task, whatever it counts."""
    if answers.is_structured(rows.task):
        return Counter(answers.structured(rows.task).counts(list(rows.targets), rows.labels))
    names = rows.task.decode(certain(rows.targets, len(rows.labels)), rows.labels)
    return Counter(name for label in names for name in (label if isinstance(label, list) else [label]))


def _task_of(rows: Examples, recipe: Recipe) -> Task:
    """What the label column fits: a structured task of the modality first, which knows its own by their names or by their form."""
    values, column = rows.targets or [], rows.columns.get("label", "").strip().casefold()
    parts = {
        name: registry.create("tasks", name, options=recipe.options.get("task") if recipe.task == name else None)
        for name in registry.parts("tasks")
    }
    own = [part for part in parts.values() if answers.is_structured(part) and part.modality == recipe.modality]
    plain = [part for part in parts.values() if not answers.is_structured(part)]
    named = [part for part in own if column in getattr(part, "column_names", ())]
    found: list[Task] = named or [part for part in (*own, *plain) if part.matches(values)]
    if not found:
        raise DataError("the label column fits no task", f"labels of one of: {', '.join(parts)}", "name the task with --task")
    chosen: Task = registry.create("tasks", found[0].name, options=recipe.options.get("task"))
    return chosen


def _usable(rows: Examples, task: Task, modality: Modality, recipe: Recipe) -> Examples:
    """The rows whose label the inferred task can use.

    Raises:
        DataError: One cannot be used, and bad rows are not to be left out.
    """
    pair = getattr(task, "check_pair", lambda *_: None)
    problems = [task.check(target) or pair(value, target) for value, target in zip(rows.inputs, rows.targets or [], strict=True)]
    bad = [(i, problem) for i, problem in enumerate(problems) if problem is not None]
    if not bad:
        return rows
    names = [getattr(target, "name", "") for target in rows.targets or []]
    if not recipe.skip_bad:
        i, problem = bad[0]
        name = names[i]
        given = f"{rows.source}, row {rows.rows[i]}: {f'{name}: ' if name else ''}{problem}"
        raise DataError(given, getattr(task, "wanted", "a label in every row"), "correct it, or leave such rows out with --skip-bad")
    kept = _take(rows, np.array([i for i, problem in enumerate(problems) if problem is None], dtype=np.int64))
    named = {reason: list(few) for reason, few in rows.named.items()}
    for i, problem in bad:
        name_few(named, examples.counted_as(problem), [names[i] or modality.where(rows.inputs[i]) or f"row {rows.rows[i]}"])
    return replace(kept, left_out=dict(Counter(rows.left_out) + Counter(examples.counted_as(problem) for _, problem in bad)), named=named)


def _split(everything: Examples, test: Examples | None, task: Task, recipe: Recipe) -> tuple[Examples, Examples | None, str]:
    if test is not None:
        return everything, test, f"test rows as given ({test.source})"
    n = len(everything.inputs)
    if n < TEST_ROWS:
        return everything, None, f"no test rows set aside: {n} rows are few, so scores are cross-validated"
    assert everything.targets is not None  # noqa: S101 - labelled rows were asked for
    coded = task.encode(everything.targets, task.labels(everything.targets))
    kept, held = splits.hold_out(coded, everything.groups, min(TEST_FRACTION, TEST_ROWS_MAX / n), recipe.seed)
    grouped = f", grouped by {recipe.group}" if recipe.group else ""
    return (
        _take(everything, kept),
        replace(_take(everything, held), left_out={}, named={}),  # counted once, with the training rows
        f"{len(held)} of {n} rows set aside as test rows, stratified{grouped}, seed {recipe.seed}",
    )


def _take(rows: Examples, chosen: NDArray[np.int64]) -> Examples:
    def pick(values: list[Any] | None) -> list[Any] | None:
        return None if values is None else [values[i] for i in chosen]

    return replace(rows, inputs=pick(rows.inputs) or [], targets=pick(rows.targets), groups=pick(rows.groups), rows=pick(rows.rows) or [])


def _warnings(train: Examples, test: Examples | None, task: Task, labels: Sequence[str]) -> list[str]:
    found = left_out_notes(train.source, train.left_out, train.named)
    if hasattr(task, "pair_notes"):
        found += [note for rows in (train, test) if rows is not None for note in task.pair_notes(rows.inputs, rows.targets or [])]
    coded = task.encode(train.targets or [], labels)
    single: list[str] = []
    if not answers.is_structured(task):
        counts = balance.class_counts(coded, len(labels))
        single = [label for label, count in zip(labels, counts, strict=True) if count == 1]
    if single:
        shown = ", ".join(repr(s) for s in single[:5]) + (", ..." if len(single) > 5 else "")
        have, them = ("has", "it") if len(single) == 1 else ("have", "them")
        of = f"{counted(len(single), 'label')} {have} a single training row, which is never held out"
        found.append(f"{of}, so nothing is known of {them}: {shown}")
    if note := task.balance_note(coded, labels) if hasattr(task, "balance_note") else "":
        found.append(note)
    if test is not None:
        found += left_out_notes(test.source, test.left_out, test.named)
        unknown = task.unknown(test.targets or [], labels)
        if unknown:
            shown = ", ".join(f"{label!r} ({count})" for label, count in list(unknown.items())[:5]) + (", ..." if len(unknown) > 5 else "")
            what, count = getattr(task, "unknown_name", "labels"), sum(unknown.values())
            rows = f"{count} test {'row carries' if count == 1 else 'rows carry'}"
            ends = "counts as an error" if count == 1 else "count as errors"
            found.append(f"{rows} {what} that no training row has, and {ends}: {shown}")
    return found


def _hash(modality: Modality, train: Examples, test: Examples | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for rows in (train, test):
        for value, target in zip(rows.inputs, rows.targets or [], strict=True) if rows is not None else ():
            digest.update(modality.content(value) + b"\0" + repr(target).encode() + b"\1")
    return digest.hexdigest()


def certain(targets: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Targets as probabilities of 0 and 1, so that the task can decode them."""
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(classes)[targets]
