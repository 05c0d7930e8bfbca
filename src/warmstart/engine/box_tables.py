"""From boxes, one after another, to a table with a row for each image; wrong boxes are told apart by what is wrong with them.

Every format of box labels is read into ``Draft``, and a table with a row for each box is one of those formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart.core.errors import ColumnNotFound, DataError
from warmstart.core.words import counted
from warmstart.engine.boxes import Boxes, Corners, problem, wanted
from warmstart.engine.draft import Table, name_few

CORNER_NAMES = (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"))
IMAGE_NAMES = ("image", "file_name", "filename", "file", "path", "image_path", "filepath", "image_id")
NO_LABEL = "a box without a label"
LABEL_NAMES = ("label", "class", "name", "category", "class_name", "target")
PLACES = ("", "images", "JPEGImages", "img", "imgs", "../images", "../JPEGImages")
"""Where images lie, seen from the file of their boxes."""


@dataclass
class _Image:
    path: Path
    row: int
    names: list[str] = field(default_factory=list)
    corners: list[Any] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    rest: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Draft:
    """Images and their boxes while they are read. ``where`` says of every box in which file and row it is."""

    source: str
    images: dict[str, _Image] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""
    wanted: str = ""
    named: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def image(self, key: str, path: Path, *, row: int = 0) -> _Image:
        """The image of this key, which is added where it is new, with its row in the source (0: images are counted)."""
        return self.images.setdefault(key, _Image(path, row or len(self.images) + 1))

    def box(self, key: str, name: str, corners: Sequence[Any], where: str) -> None:
        """Add a box to an image that is there; corners in pixels."""
        image = self.images[key]
        image.names.append(name)
        image.corners.append(corners)
        image.where.append(where)

    def reject(self, reason: str, where: str, wanted: str) -> None:
        """Count something that cannot be used; ``wanted`` says what should stand there."""
        self.wanted = self.wanted or wanted
        self.first_bad = self.first_bad or f"{where}: {reason}"
        self.bad[reason] += 1
        name_few(self.named, reason, [where])

    def finish(self, *, skip_bad: bool) -> Table:
        """A row for each image: its path in ``image``, its ``Boxes`` in ``label``, and columns that say one thing of an image.

        Raises:
            DataError: A box is wrong and is not to be left out, or there is none at all.
        """
        twice = 0
        table = Table({"image": [], "label": []}, [], self.source)
        images = list(self.images.values())
        with ThreadPoolExecutor(8) as threads:
            sizes = list(threads.map(lambda image: size_of(image.path), images))
        for image, size in zip(images, sizes, strict=True):
            usable, doubled = self._usable(image, size)
            twice += doubled
            if image.names and not usable:
                continue  # an image whose every box is wrong is not one without objects
            table.columns["image"].append(str(image.path))
            table.columns["label"].append(_boxes(usable, size or (0, 0)))
            table.rows.append(image.row)
        if self.bad and not skip_bad:
            each = ", ".join(f"{count:,} {reason}" for reason, count in self.bad.most_common())
            given = f"{self.first_bad} (of all that is wrong: {each})" if self.bad.total() > 1 else self.first_bad
            raise DataError(given, self.wanted, "correct it, or --skip-bad leaves such out")
        found = sum(len(boxes.names) for boxes in table.columns["label"])
        if not found:
            why = f": {self.first_bad}" if self.first_bad else ""
            raise DataError(f"{self.source} has no box that can be used{why}", "images with boxes around objects", "check the labels")
        table.notes.extend(self.notes)
        if twice:
            table.notes.append(f"{counted(twice, 'box', 'boxes')} that stood there twice {'was' if twice == 1 else 'were'} counted once")
        table.left_out.update(self.bad)
        table.named.update(self.named)
        self._carry(table)
        return table

    def _usable(self, image: _Image, size: tuple[int, int] | None) -> tuple[list[tuple[str, Corners]], int]:
        """The boxes of an image that can be used, and how many more were the same as another; the others are counted as bad."""
        found: dict[tuple[str, Corners], None] = {}
        good = 0
        for name, corners, where in zip(image.names, image.corners, image.where, strict=True):
            reason = problem(corners, size) if str(name).strip() else NO_LABEL
            if reason is not None:
                shown = ", ".join(str(v) for v in corners)
                inside = f" in an image of {size[0]} x {size[1]}" if size else ""
                self.reject(
                    reason, f"{where}: [{shown}]{inside}", "the name of what is in every box" if reason == NO_LABEL else wanted(reason)
                )
                continue
            good += 1
            found.setdefault((str(name).strip(), _cut(corners, size)), None)
        return list(found), good - len(found)

    def _carry(self, table: Table) -> None:
        """Columns of a table of boxes that have one value in each image, so that they can group or be looked at."""
        kept = {image.row: image for image in self.images.values()}
        images = [kept[row] for row in table.rows]
        for name in images[0].rest if images else ():
            if all(len(set(map(str, image.rest[name]))) == 1 for image in images):
                table.columns[name] = [image.rest[name][0] for image in images]


def is_table_of_boxes(columns: Sequence[str]) -> bool:
    """Whether these are the columns of a table with a row for each box."""
    known = {name.strip().casefold() for name in columns}
    return any(set(names) <= known for names in CORNER_NAMES)


def lacking(columns: Iterable[str]) -> list[str]:
    """Corners that are missing from a table which has most of them."""
    known = {name.strip().casefold() for name in columns}
    missing = ([name for name in names if name not in known] for names in CORNER_NAMES)
    return next((names for names in missing if 1 <= len(names) <= 2), [])


def grouped(table: Table, folder: Path, *, skip_bad: bool) -> Table:
    """A table with a row for each box as one with a row for each image. A row with an image alone says that there is nothing in it.

    Args:
        table: Columns image, label, xmin, ymin, xmax, ymax (pixels; or x1, y1, x2, y2), under their usual names.
        folder: Where relative paths begin; images may also lie in ``images`` in it.
        skip_bad: Leave out boxes that cannot be used, and count them.

    Raises:
        ColumnNotFound: No column of images or of labels.
        DataError: See ``Draft.finish``.
    """
    by_name = {name.strip().casefold(): name for name in table.columns}
    corners = next([by_name[n] for n in names] for names in CORNER_NAMES if set(names) <= set(by_name))
    image, label = (_column(table, by_name, role, names) for role, names in (("image", IMAGE_NAMES), ("label", LABEL_NAMES)))
    others = [name for name in table.columns if name not in (*corners, image, label)]
    places = Places(folder)
    draft = Draft(table.source, bad=Counter(table.left_out), notes=list(table.notes), named=dict(table.named))
    for i, row in enumerate(table.rows):
        where = f"{table.source}, {table.unit} {row}"
        name = str(table.columns[image][i] or "").strip()
        if not name:
            draft.reject("missing image", where, "the name of an image in every row")
            continue
        found = draft.images.get(name) or draft.image(name, places.find(name), row=row)
        for other in others:
            found.rest.setdefault(other, []).append(table.columns[other][i])
        values = [table.columns[c][i] for c in corners]
        if not (all(_blank(v) for v in values) and _blank(table.columns[label][i])):
            draft.box(name, "" if _blank(table.columns[label][i]) else str(table.columns[label][i]), values, where)
    finished = draft.finish(skip_bad=skip_bad)
    if "split" in finished.columns and len(set(finished.columns["split"])) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(map(str, finished.columns["split"])).most_common())
        finished.notes.append(f"the column 'split' ({counts}) is not used: give the rows of one split, and another with --test")
    return finished


class Places:
    """Finds image files by the names that labels have for them."""

    def __init__(self, *folders: Path) -> None:
        self._folders = [folder / place for folder in folders for place in PLACES]

    def find(self, name: str) -> Path:
        """The file of this name in one of the places; where there is none, where it would be in the first."""
        for i, folder in enumerate(self._folders):
            if (folder / name).is_file():
                self._folders.insert(0, self._folders.pop(i))  # the next will lie there too
                return (folder / name).absolute()
        return (self._folders[0] / name).absolute()


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, from its header; None where it has none that can be read."""
    import warnings

    from PIL import Image

    turned = {5, 6, 7, 8}  # values of the EXIF orientation by which an image lies on its side
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            width, height = image.size
            return (height, width) if image.getexif().get(274) in turned else (width, height)
    except Exception:  # whatever a damaged file makes Pillow raise; reading the image says what is wrong with it
        return None


def _boxes(usable: Sequence[tuple[str, Corners]], size: tuple[int, int]) -> Boxes:
    return Boxes(tuple(name for name, _ in usable), tuple(corners for _, corners in usable), size)


def _cut(corners: Sequence[Any], size: tuple[int, int] | None) -> Corners:
    xmin, ymin, xmax, ymax = (float(v) for v in corners)
    width, height = size or (xmax, ymax)
    return max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))


def _column(table: Table, by_name: Mapping[str, str], role: str, names: Sequence[str]) -> str:
    found = next((by_name[name] for name in names if name in by_name), None)
    if found is None:
        columns = ", ".join(map(repr, table.columns))
        raise ColumnNotFound(f"{table.source} has boxes but no column of {role}s", f"columns: {columns}", f"call one {names[0]!r}")
    return found


def _blank(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())
