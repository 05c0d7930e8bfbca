"""What images and sound have in common: files in a folder for each class, columns that hold them, features of single inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from warmstart.core.errors import ColumnNotFound, DataError
from warmstart.core.protocols import Input
from warmstart.engine.draft import Table

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
FILE_NAMES = ("file", "file_name", "filename", "path")
SAMPLE_ROWS = 50

Looks = Callable[[Any], bool]
"""Whether one value of a column may be an input: a name of a file with the right suffix, bytes, an array, ..."""


def read_folder(folder: Path, *, suffixes: Sequence[str], role: str) -> Table | None:
    """Files with these suffixes below ``folder`` as columns ``role`` (paths) and ``label`` (the folder directly below ``folder``).

    Files that lie in ``folder`` itself have no label; where all do, there is no label column. None where there is no such file.

    Raises:
        DataError: The folders below are splits rather than classes.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not _hidden(p.relative_to(folder)))
    if not files:
        return None
    inside = [p.relative_to(folder).parts for p in files]
    classes = {parts[0] for parts in inside if len(parts) > 1}
    if len(classes) > 1 and {name.lower() for name in classes} <= SPLITS:
        shown = sorted(classes)
        train = next((name for name in shown if name.lower().startswith("train")), shown[0])
        other = next(name for name in shown if name != train)
        raise DataError(
            f"the folders in {folder} are splits ({', '.join(shown)}), not classes",
            "a folder with one folder for each class",
            f"give {folder / train}, and --test {folder / other}",
        )
    columns: dict[str, list[Any]] = {role: [str(p.absolute()) for p in files]}
    if classes:
        columns["label"] = [parts[0] if len(parts) > 1 else None for parts in inside]
    return Table(columns, list(range(1, len(files) + 1)), str(folder))


def holds(values: Sequence[Any], looks: Looks, folder: Path | None = None) -> bool:
    """Whether most of the values that are there look like inputs; with a folder, whether one of the named files exists too."""
    sample = [v for v in values[:SAMPLE_ROWS] if v is not None and not (isinstance(v, str) and not v)]
    if not sample or sum(looks(v) for v in sample) * 2 <= len(sample):
        return False
    names = [v for v in sample if isinstance(v, str)]
    return folder is None or not names or any((folder / name).is_file() for name in names)


def infer(
    columns: Mapping[str, Sequence[Any]], given: Mapping[str, str], *, role: str, looks: Looks, names: Sequence[str], plural: str
) -> dict[str, str]:
    """``given``, with the column that plays ``role``: the one that holds such inputs, by a well-known name where there are several.

    Raises:
        ColumnNotFound: No column holds them, or several do.
    """
    if role in given:
        return dict(given)
    found = [name for name, values in columns.items() if holds(values, looks)]
    named = [name for known in names for name in found if name.strip().casefold() == known]
    if len(found) != 1 and not named:
        why = f"several columns hold {plural}: {', '.join(map(repr, found))}" if found else f"no column holds {plural}"
        raise ColumnNotFound(why, f"columns: {', '.join(map(repr, list(columns)[:20]))}", f"name it: --column {role}=NAME")
    return {role: (named or found)[0], **given}


class Features(Protocol):
    """Features of the classic rung, of single inputs."""

    def fit(self, values: Sequence[Any], /) -> Any: ...

    def transform(self, values: Sequence[Any], /) -> Any: ...

    def save(self, folder: Path, /) -> None: ...


class SingleFeaturizer:
    """A ``Featurizer`` of inputs that have one part, from features of that part."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def fit(self, values: Sequence[Input]) -> Any:
        """Learn from ``values``, and give their features: (N, F) float32."""
        return self._features.fit([value[0] for value in values])

    def transform(self, values: Sequence[Input]) -> Any:
        """Features (N, F) float32."""
        return self._features.transform([value[0] for value in values])

    def save(self, folder: Path) -> None:
        """Write safetensors and JSON."""
        self._features.save(folder)


def path_of(source: Any) -> Path | None:
    """The file or folder that a source names, where it is there; None for anything else."""
    if not isinstance(source, str | os.PathLike) or str(source) == "-":
        return None
    try:
        return Path(source) if Path(source).exists() else None
    except (OSError, ValueError):  # no name of a file at all
        return None


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)
