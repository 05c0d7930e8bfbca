"""The adapted model: what is saved, loaded and asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core import registry
from warmstart.core.card import Card
from warmstart.core.errors import BadOption, ColumnNotFound, DataError, NotAModel
from warmstart.core.protocols import Input, Modality, Predictor, Task
from warmstart.engine import answers, sources
from warmstart.engine import device as devices
from warmstart.engine import predictor as predictors
from warmstart.engine.ahead import ahead
from warmstart.engine.answers import Files
from warmstart.engine.draft import Table, name_few
from warmstart.engine.examples import Examples, read_examples

ROWS_AT_ONCE = 20_000
"""Rows of a part, where the modality does not say less (``at_once``)."""

SETTINGS = "warmstart.json"
"""What a folder needs beside weights to predict as it was trained: precision and longest input."""


@dataclass(frozen=True)
class Model:
    """Modality + body + head. ``folder`` is where it lies; ``card`` says what it is and where it came from."""

    folder: Path
    card: Card
    modality: Modality
    task: Task
    predictor: Predictor

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels

    @property
    def body(self) -> Path | None:
        """Where the body's own preprocessing lies; None for a model without a body."""
        return None if self.card.head == "none" else self.folder

    @property
    def roles(self) -> list[str]:
        """The parts of one input, in order."""
        return [role for role in self.modality.roles if role in self.card.columns]

    def predict(
        self, data: Any, *, column: dict[str, str] | None = None, skip_bad: bool = False, files: Path | str | None = None
    ) -> list[dict[str, Any]]:
        """Label, its calibrated probability, and the calibrated probability of every class, for each row; of a structured task the
        ``prediction``, and where the task says so how sure it is.

        Args:
            data: A list of inputs (strings, tuples for text pairs, image files, PIL images, arrays), or anything that ``warmstart
                adapt`` reads: a file, a folder, a frame, a Dataset.
            column: Role to column, where it cannot be inferred.
            skip_bad: Leave out rows that cannot be used.
            files: Folder for answers that are files, such as masks.

        Raises:
            BadOption: ``files`` for a task whose answers are no files.
            DataError: A row cannot be used, and says which.
        """
        inputs = self.inputs(data, column=column, skip_bad=skip_bad)
        return self.records(inputs, files=None if files is None else Files(Path(files)))

    def records(self, values: Sequence[Input], *, quiet: bool = True, files: Files | None = None) -> list[dict[str, Any]]:
        """As ``predict``, for inputs that were read already."""
        task: Any = self.task
        if files is not None and not hasattr(task, "write"):
            known = "a file for the answers: .csv, .jsonl or .parquet"
            raise BadOption(f"the folder {files.folder} for answers of {task.name}, which are no files", known, "name a file")
        probabilities = self.probabilities(values, quiet=quiet)
        if answers.is_structured(task):
            found = self._structured(probabilities, values)
            written = task.write(probabilities, self.labels, values, files) if files is not None and values else [{}] * len(found)
            return [record | more for record, more in zip(found, written, strict=True)]
        decided = self.task.decode(probabilities, self.labels)
        return [self._record(label, row) for label, row in zip(decided, probabilities, strict=True)]

    def probabilities(self, values: Sequence[Input], *, quiet: bool = True) -> NDArray[np.float64]:
        """Calibrated probabilities (N, C), or the compact answers of a structured task."""
        if not values:
            return np.zeros((0, len(self.labels)))
        if not hasattr(self.task, "pieces"):
            return answers.probabilities(self.task, self.predictor.logits(values, quiet=quiet))
        pieces = [self.task.pieces(value) for value in values]
        found = self.predictor.logits([piece for of_one in pieces for piece in of_one], quiet=quiet)
        joined: NDArray[np.float64] = self.task.rejoined(found, [len(of_one) for of_one in pieces])  # type: ignore[attr-defined]
        return joined

    def named(self, value: Input) -> dict[str, Any]:
        """One input by the roles of its parts, as it is written beside its prediction: what it is, or the file it came from."""
        where = self.modality.where(value)
        return {self.roles[0]: where} if where else dict(zip(self.modality.roles, value, strict=False))

    def parts(self, data: Any, *, column: dict[str, str], skip_bad: bool) -> Iterator[Examples]:
        """The rows of ``data`` in parts of which a few fit into memory; the next one is read while the last is used.

        Labels are not needed. Bad rows are refused, or counted, in the part that they are in; those of a list have no number.

        Raises:
            InputError: The source, a column or a row is wrong, or no row can be used.
        """
        plain = isinstance(data, list | tuple)
        table = (
            Table({}, list(range(len(data))), "the list")
            if plain
            else sources.opened(data, self.modality, skip_bad=skip_bad, by="this model")
        )
        at_once = getattr(self.modality, "at_once", ROWS_AT_ONCE)
        starts = range(0, len(table.rows), at_once)

        def read(start: int) -> Examples:
            stop = start + at_once
            if plain:
                return self._listed(data[start:stop], column=column, skip_bad=skip_bad, first=start)
            part = table if len(starts) == 1 else table.part(start, stop)
            return self.examples(part, column=column, skip_bad=skip_bad, labelled=False, may_be_empty=len(starts) > 1)

        used = 0
        for found in ahead(read, starts):
            used += len(found.inputs)
            yield found
        if not used and len(starts) > 1:
            raise DataError(f"none of {len(table.rows):,} rows of {table.source} can be used", "usable rows", "check the files")

    def inputs(self, data: Any, *, column: dict[str, str] | None = None, skip_bad: bool = False) -> list[Input]:
        """The rows of ``data`` as this model's modality takes them."""
        if isinstance(data, list | tuple):
            return self._listed(data, column=column or {}, skip_bad=skip_bad).inputs
        return self.examples(data, column=column or {}, skip_bad=skip_bad, labelled=False).inputs

    def _listed(self, data: Sequence[Any], *, column: dict[str, str], skip_bad: bool, first: int = 0) -> Examples:
        """The rows of a list, which may be a part of a longer one, after so many ``first``."""
        kept: list[Input] = []
        left_out, named = Counter[str](), dict[str, list[str]]()
        if not any(isinstance(v, Mapping) for v in data):
            values = [v if isinstance(v, tuple) else (v,) for v in data]
            values = self.modality.load(values, folder=Path(), body=self.body)
            for i, value in enumerate(values, first + 1):
                problem = self.modality.check(value)
                if len(value) != len(self.roles):
                    raise DataError(
                        f"input {i} has {len(value)} parts", f"{len(self.roles)}: {', '.join(self.roles)}", "give each as a tuple"
                    )
                if problem is not None and not skip_bad:
                    where = self.modality.where(value)
                    given = f"input {i}: {where and f'{where}: '}{problem}"
                    raise DataError(given, f"usable {self.modality.name} in every row", "correct it, or leave such rows out")
                if problem is None:
                    kept.append(value)
                else:
                    left_out[problem] += 1
                    name_few(named, problem, [self.modality.where(value) or f"input {i}"])
            return Examples(kept, None, None, [], "the list", {}, dict(left_out), named=named)
        return replace(self.examples(data, column=column, skip_bad=skip_bad, labelled=False), rows=[])

    def examples(self, data: Any, *, column: dict[str, str], skip_bad: bool, labelled: bool, may_be_empty: bool = False) -> Examples:
        """Read a table with the columns that the model was trained on, unless others are given."""
        roles = {role: name for role, name in self.card.columns.items() if role in (*self.modality.roles, "label")}
        table = sources.opened(data, self.modality, skip_bad=skip_bad, by="this model")
        known = {role: name for role, name in roles.items() if name in table.columns}
        found = read_examples(
            table,
            modality=self.modality,
            task=self.task,
            given={**known, **column},
            group=None,
            skip_bad=skip_bad,
            labelled=labelled,
            body=self.body,
            may_be_empty=may_be_empty,
        )
        differing = [role for role in self.modality.roles if (role in found.columns) != (role in self.roles)]
        if differing:
            raise ColumnNotFound(
                f"{found.source} was read as {', '.join(f'{role} = {name!r}' for role, name in found.columns.items())}",
                f"the parts that the model was trained on: {', '.join(self.roles)}",
                f"name the columns: {' '.join(f'--column {role}=NAME' for role in self.roles)}",
            )
        return found

    def _structured(self, compact: NDArray[Any], values: Sequence[Input]) -> list[dict[str, Any]]:
        """Answers of a structured task, each with how sure it is where the task says so."""
        task: Any = self.task
        decoded = task.decode(compact, self.labels, values) if len(values) else []
        sure = task.confidence(compact) if hasattr(task, "confidence") else [None] * len(decoded)
        return [{"prediction": found, **({} if p is None else {"probability": float(p)})} for found, p in zip(decoded, sure, strict=True)]

    def _record(self, label: Any, row: NDArray[np.float64]) -> dict[str, Any]:
        by_class = {name: float(p) for name, p in zip(self.labels, row, strict=True)}
        if isinstance(label, list):  # the probability that exactly this set is right, were the labels independent
            probability = float(np.prod([p if name in label else 1 - p for name, p in by_class.items()]))
        else:
            probability = by_class[label]
        return {"label": label, "probability": probability, "probabilities": by_class}


def load(folder: Path, *, device: str = "auto", precision: str = "auto") -> Model:
    """The model in a folder that ``adapt`` wrote, with the hash of every file checked.

    Raises:
        NotAModel: The folder is no finished model folder.
        DamagedModel: A file is not the one that was written.
    """
    import json

    card = Card.read(folder)
    if card.head == "body":
        do = f"adapt it first: warmstart adapt DATA --backbone {folder} --out MODEL"
        raise NotAModel(f"{folder} is a pre-trained body ({card.strategy}), which predicts no labels", "a folder that adapt wrote", do)
    card.verify(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    where = devices.resolve(device)
    task = registry.create("tasks", card.task, options=settings["options"].get("task"))
    given = {**getattr(task, "modality_options", {}), **settings["options"].get("modality", {})}
    modality = registry.create("modalities", card.modality, options=given)
    # What was imported was fitted by no strategy: it is body and head alone.
    load_predictor = predictors.load if card.verb == "import" else registry.module("strategies", card.strategy).load
    predictor = load_predictor(
        folder,
        modality=modality,
        device=where,
        precision=devices.served(precision, settings["precision"], where),
        max_length=settings["max_length"],
    )
    return Model(folder, card, modality, task, predictor)
