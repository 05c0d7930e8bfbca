"""Files of boxes: COCO JSON, YOLO text files, Pascal VOC XML, and tables with a row for each box, all as one table of images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart.core.errors import DataError, FileUnreadable
from warmstart.core.words import counted
from warmstart.engine import images, media
from warmstart.engine.box_tables import Draft, Places, grouped, is_table_of_boxes
from warmstart.engine.draft import Table
from warmstart.engine.tables import ARROW_SUFFIXES, read_table

TABLE_SUFFIXES = (".csv", ".tsv", *ARROW_SUFFIXES)
COCO_KEYS = ("images", "annotations", "categories")
HEAD_BYTES = 4096
YOLO_LINE = "five numbers, class cx cy w h as shares of the image, or a class and the corners of a polygon"
LARGEST_XML = 16 << 20
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


def read(source: Any, *, skip_bad: bool) -> Table | None:
    """``source`` as a table of images with a ``Boxes`` in the column ``label``, or None where it holds no boxes.

    A path may be a COCO JSON file, a table with a row for each box, a YOLO folder or its ``data.yaml``, a folder of Pascal VOC XML files,
    or a folder in which one such file lies. Anything else may be a frame or mapping of columns with a row for each box.

    Raises:
        DataError: A box is wrong, or there is none.
        FileUnreadable: A file is damaged.
    """
    path = media.path_of(source)
    if path is None:
        columns = getattr(source, "columns", None) if not isinstance(source, Mapping) else list(source)
        if columns is None or isinstance(source, str | bytes) or not is_table_of_boxes([str(c) for c in columns]):
            return None
        return grouped(read_table(source, skip_bad=skip_bad), Path(), skip_bad=skip_bad)
    return _read_folder(path, skip_bad) if path.is_dir() else _read_file(path, skip_bad)


def _read_file(path: Path, skip_bad: bool) -> Table | None:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES and is_table_of_boxes(header(path)):
        return grouped(read_table(path, skip_bad=skip_bad), path.parent, skip_bad=skip_bad)
    if suffix == ".json" and _looks_like_coco(path):
        return _read_coco(path, skip_bad)
    if suffix == ".xml" and path.is_file():
        return _read_voc([path], path.parent, skip_bad)
    if path.name.lower() in ("data.yaml", "data.yml", "dataset.yaml"):
        return _read_folder(path.parent, skip_bad)
    return None


def _read_folder(folder: Path, skip_bad: bool) -> Table | None:
    """The one layout of boxes that a folder has, if any."""
    coco = [p for p in sorted(folder.glob("*.json")) if _looks_like_coco(p)]
    tables = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in TABLE_SUFFIXES and is_table_of_boxes(header(p))]
    if len(coco) + len(tables) > 1:
        names = ", ".join(p.name for p in [*coco, *tables])
        raise DataError(
            f"{folder} has several files of boxes: {names}", "one for training", f"give {[*coco, *tables][0]}, others by --test"
        )
    for path in [*coco, *tables]:
        return _read_file(path, skip_bad)
    voc = sorted((folder / "Annotations").glob("*.xml")) or sorted(folder.glob("*.xml"))
    if voc:
        return _read_voc(voc, folder, skip_bad)
    labels = _yolo_labels(folder)
    if labels is not None:
        return _read_yolo(folder, labels, skip_bad)
    _refuse_splits(folder)
    return None


def _refuse_splits(folder: Path) -> None:
    """Raise where boxes lie one level down, in folders for each split."""
    for below in (folder, folder / "images"):
        splits = [p for p in sorted(below.iterdir()) if p.is_dir() and p.name.lower() in media.SPLITS] if below.is_dir() else []
        if len(splits) > 1 and any(_yolo_labels(p) is not None or list(p.glob("*.xml")) or list(p.glob("*.coco.json")) for p in splits):
            train = next((p for p in splits if p.name.lower().startswith("train")), splits[0])
            other = next(p for p in splits if p != train)
            names = ", ".join(p.name for p in splits)
            raise DataError(f"the folders in {below} are splits ({names})", "one of them to train on", f"give {train}, and --test {other}")


def header(path: Path) -> list[str]:
    """The column names of a table, from its first bytes; empty where they cannot be told."""
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            with path.open("rb") as file:
                first = file.read(HEAD_BYTES).decode("utf-8-sig", "replace").splitlines()
        except OSError:
            return []
        separator = max(",;\t|", key=first[0].count) if first else ","
        return [cell.strip(' "') for cell in first[0].split(separator)] if first else []
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            return list(pa.parquet.read_schema(path).names)
        return list(pa.ipc.open_file(str(path)).schema.names)
    except (pa.ArrowException, OSError, ValueError):
        return []  # reading it as a table says what is wrong


# COCO ---------------------------------------------------------------------------------------------------------------------------------


def _looks_like_coco(path: Path) -> bool:
    """Whether a JSON file is one object with two of COCO's keys, so that reading it says which is missing; those of a large file may stand
    behind its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
            if not head.startswith(b"{") or b"\n{" in head:
                return False
            found = head + file.read()
    except OSError:
        return False
    return sum(re.search(rf'"{key}"\s*:'.encode(), found) is not None for key in COCO_KEYS) >= 2


def _read_coco(path: Path, skip_bad: bool) -> Table:
    """``instances_*.json``: ``bbox`` is [x, y, width, height] in pixels. Crowds are no boxes of single objects, and are left out."""
    whole = _coco_object(path)
    stem = path.stem.removeprefix("instances_")
    places = Places(path.parent, path.parent / stem, path.parent.parent / stem, path.parent.parent / "images" / stem, path.parent.parent)
    names = {c.get("id"): str(c.get("name", "")) for c in whole["categories"]}
    draft = Draft(str(path))
    keys: dict[Any, str] = {}
    for i, image in enumerate(whole["images"]):
        name = str(image.get("file_name") or "")
        if not name:
            draft.reject("an image without file_name", f"{path}, images[{i}]", "a file_name for each of the images")
            continue
        keys[image.get("id")] = name
        draft.image(name, places.find(name), row=i + 1)
    crowds = 0
    for i, annotation in enumerate(whole["annotations"]):
        where = f"{path}, annotations[{i}]"
        key = keys.get(annotation.get("image_id"))
        box = annotation.get("bbox")
        if key is None:
            draft.reject(
                "a box of an image that is not listed", f"{where}: image_id {annotation.get('image_id')!r}", "the id of one of 'images'"
            )
        elif annotation.get("category_id") not in names:
            draft.reject("an unknown category", f"{where}: category_id {annotation.get('category_id')!r}", "the id of one of 'categories'")
        elif annotation.get("iscrowd"):
            crowds += 1
        elif not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            draft.reject("a bbox that is not four numbers", f"{where}: {str(box)[:80]}", "[x, y, width, height] in pixels")
        else:
            x, y, width, height = box
            draft.box(key, names[annotation["category_id"]], (x, y, x + width, y + height), where)
    if crowds:
        draft.notes.append(f"{counted(crowds, 'crowd')} (iscrowd) {'was' if crowds == 1 else 'were'} left out")
    return draft.finish(skip_bad=skip_bad)


def _coco_object(path: Path) -> dict[str, Any]:
    try:
        whole = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileUnreadable(f"{path}: {str(error)[:200]}", "COCO JSON", "check how it was written") from None
    for key in COCO_KEYS:
        if not isinstance(whole.get(key), list) or not all(isinstance(v, dict) for v in whole[key]):
            raise FileUnreadable(
                f"{path} has no list of objects {key!r}", f"COCO JSON with {', '.join(COCO_KEYS)}", "check how it was written"
            )
    found: dict[str, Any] = whole
    return found


# YOLO ---------------------------------------------------------------------------------------------------------------------------------


def _yolo_labels(folder: Path) -> Path | None:
    """The folder of text files that belongs to a folder of images, or to one that holds ``images`` and ``labels``."""
    places = [folder / "labels"] if (folder / "images").is_dir() else []
    if "images" in folder.parts:  # .../images/train has its labels in .../labels/train
        at = len(folder.parts) - 1 - folder.parts[::-1].index("images")
        places.append(Path(*folder.parts[:at], "labels", *folder.parts[at + 1 :]))
    return next((place for place in places if place.is_dir() and any(place.glob("*.txt"))), None)


def _read_yolo(folder: Path, labels: Path, skip_bad: bool) -> Table:
    """``labels/NAME.txt`` beside ``images/NAME.jpg``: ``class cx cy w h`` a line, as shares of the image; or the corners of a polygon."""
    from warmstart.engine.box_tables import size_of

    pictures = folder / "images" if (folder / "images").is_dir() else folder
    files = sorted(p for p in pictures.iterdir() if p.suffix.lower() in images.SUFFIXES)
    names = _yolo_names(folder, labels)
    draft = Draft(str(folder))
    lone = 0
    for path in files:
        draft.image(path.name, path.absolute())
        text = labels / f"{path.stem}.txt"
        lone += not text.is_file()
        size = size_of(path) if text.is_file() else None
        for number, cells in _lines(text) if size is not None else ():
            where = f"{text}, line {number}"
            name = _yolo_name(cells[0], names)
            corners = _yolo_corners(cells[1:])
            if name is None:
                draft.reject("an unknown class", f"{where}: {cells[0][:20]!r}", _yolo_classes(names))
            elif corners is None:
                draft.reject("a line that is not: class cx cy w h", f"{where}: {' '.join(cells)[:60]!r}", YOLO_LINE)
            else:
                draft.box(path.name, name, _scaled(corners, size), where)
    known = {path.stem for path in files}
    for text in sorted(labels.glob("*.txt")):
        if text.stem not in known and text.name not in NAME_FILES:
            draft.reject("labels of an image that is missing", str(text), f"an image of this name in {pictures}")
    if names is None:
        draft.notes.append(f"no {NAME_FILES[0]} or classes.txt names the classes, so their numbers are their names")
    if lone:
        draft.notes.append(f"{counted(lone, 'image')} without a file of labels: nothing is there")
    return draft.finish(skip_bad=skip_bad)


def _scaled(corners: Sequence[float], size: tuple[int, int] | None) -> list[float]:
    """Shares of an image's sides as pixels."""
    width, height = size or (1, 1)
    return [value * side for value, side in zip(corners, (width, height, width, height), strict=True)]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            yield number, line.split()


def _yolo_name(cell: str, names: Mapping[int, str] | None) -> str | None:
    try:
        number = int(cell)
    except ValueError:
        return None
    return (str(number) if number >= 0 else None) if names is None else names.get(number)


def _yolo_classes(names: Mapping[int, str] | None) -> str:
    """What the first number of a line may be."""
    if names is None:
        return "the number of a class: 0, 1, ..."
    return f"the number of one of the {len(names)} classes that are named, {min(names)} to {max(names)}" if names else "a class with a name"


def _yolo_corners(cells: Sequence[str]) -> tuple[float, float, float, float] | None:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return None


def _yolo_names(folder: Path, labels: Path) -> dict[int, str] | None:
    """Number to name, from the first file of names in the folder or one of those above it; None where there is none."""
    import yaml

    for place in (labels, *[folder, *folder.absolute().parents][:3]):
        for file in (place / name for name in NAME_FILES):
            if not file.is_file():
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            if file.suffix not in (".yaml", ".yml"):
                return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
            try:
                names = (yaml.safe_load(text) or {}).get("names")
            except (yaml.YAMLError, AttributeError) as error:
                raise FileUnreadable(
                    f"{file}{_line_of(error)}: {str(error).splitlines()[0]}", "names: [first, second]", "correct it"
                ) from None
            if isinstance(names, list):
                return {i: str(name) for i, name in enumerate(names)}
            if isinstance(names, dict):
                return {int(i): str(name) for i, name in names.items() if str(i).isdigit()}
    return None


def _line_of(error: Exception) -> str:
    """``, line 3`` of an error of yaml, where it knows."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


# Pascal VOC ---------------------------------------------------------------------------------------------------------------------------


def _read_voc(files: Sequence[Path], folder: Path, skip_bad: bool) -> Table | None:
    """One XML file for each image: ``object/name`` and ``object/bndbox``; None where none of them is an annotation."""
    places = Places(folder, files[0].parent)
    draft = Draft(str(folder if len(files) > 1 else files[0]))
    known = False
    for i, path in enumerate(files, 1):
        root = _xml(path)
        if isinstance(root, str):
            draft.reject(root, str(path), f"a whole XML file of Pascal VOC without entities, of at most {LARGEST_XML >> 20} MiB")
            continue
        if root.tag != "annotation":
            continue
        known = True
        named = (root.findtext("filename") or "").strip()
        image = places.find(named) if named else path
        if not named or not image.is_file():  # a renamed image is often still called by its old name
            image = next((p for s in images.SUFFIXES if (p := places.find(path.stem + s)).is_file()), image)
        draft.image(path.name, image, row=i)
        for number, thing in enumerate(root.findall("object"), 1):
            where = f"{path}, object {number}"
            corners = [thing.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
            draft.box(path.name, thing.findtext("name") or "", corners, where)
    return draft.finish(skip_bad=skip_bad) if known or draft.bad else None


def _xml(path: Path) -> Any:
    """The root of an XML file, or why it is not read: entities, which can fill the memory or read other files, are refused."""
    from defusedxml import DefusedXmlException, ElementTree

    try:
        if path.stat().st_size > LARGEST_XML:
            return "XML that is too large for the labels of an image"
        return ElementTree.fromstring(path.read_bytes(), forbid_dtd=False)
    except DefusedXmlException:
        return "XML with entities, which is not read"
    except (ElementTree.ParseError, OSError, ValueError, LookupError):
        return "damaged XML"
