"""Boxes are read alike from every format, and every wrong one is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_boxes
from warmstart.core.errors import DataError, FileUnreadable
from warmstart.engine import box_files
from warmstart.engine.boxes import Boxes, overlaps

HEADER = "image,label,xmin,ymin,xmax,ymax\n"
WRITERS = {"table": tiny_boxes.write_table, "coco": tiny_boxes.write_coco, "yolo": tiny_boxes.write_yolo, "voc": tiny_boxes.write_voc}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    return tmp_path


def table(folder: Path, *lines: str) -> Path:
    (folder / "boxes.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return folder / "boxes.csv"


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_says_the_same(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path, 10)
    found = box_files.read(path, skip_bad=False)
    assert found is not None
    for image, boxes in zip(found.columns["image"], found.columns["label"], strict=True):
        truth = tiny_boxes.pictures(10)[int(Path(image).stem[2:])][1]
        assert Path(image).is_file()
        assert boxes.size == (64, 48)
        assert boxes.names == tuple(name for name, _ in truth)
        np.testing.assert_allclose(np.array(boxes.corners).reshape(-1, 4), np.array([c for _, c in truth]).reshape(-1, 4), atol=1e-4)
    assert len(found.rows) == 10
    assert sum(not boxes.names for boxes in found.columns["label"]) == 2
    if path.is_file():  # and by the folder that it lies in
        again = box_files.read(path.parent, skip_bad=False)
        assert again is not None and again.columns == found.columns  # noqa: PT018


@pytest.mark.parametrize(
    ("row", "reason", "wanted"),
    [
        ("a.png,cat,5,5,4,9", "minimum is beyond its maximum", "xmin < xmax"),
        ("a.png,cat,5,5,5,9", "an empty box", "xmin < xmax"),
        ("a.png,cat,-7,5,9,9", "negative corner", "boxes inside images"),
        ("a.png,cat,5,5,90,9", "outside its image", "boxes inside images"),
        ("a.png,cat,5,nan,9,9", "not finite", "four finite numbers"),
        ("a.png,cat,5,x,9,9", "no number", "four finite numbers"),
        ("a.png,,5,5,9,9", "without a label", "the name"),
        ("a.png,cat,,5,9,9", "no number", "four finite numbers"),
        (",cat,1,5,9,9", "missing image", "the name of an image"),
    ],
)
def test_a_wrong_box_is_named_by_file_and_row_or_counted(row: str, reason: str, wanted: str, folder: Path) -> None:
    path = table(folder, "a.png,cat,1,1,9,9", row)
    with pytest.raises(DataError, match=reason) as raised:
        box_files.read(path, skip_bad=False)
    assert "boxes.csv, line 3" in raised.value.given
    assert raised.value.expected.startswith(wanted)
    found = box_files.read(path, skip_bad=True)
    assert found is not None
    assert found.columns["label"] == [Boxes(("cat",), ((1.0, 1.0, 9.0, 9.0),), (64, 48))]
    assert sum(found.left_out.values()) == 1


def test_rounding_is_cut_and_doubles_are_counted_once(folder: Path) -> None:
    found = box_files.read(table(folder, "a.png,cat,-1,1,9,49", "a.png,cat,-1,1,9,49"), skip_bad=False)
    assert found is not None
    assert found.columns["label"][0].corners == ((0.0, 1.0, 9.0, 48.0),)
    assert any("counted once" in note for note in found.notes)


def test_no_box_at_all(folder: Path) -> None:
    with pytest.raises(DataError, match="no box"):
        box_files.read(table(folder, "a.png,,,,,"), skip_bad=False)


def test_a_split_column_is_told(folder: Path) -> None:
    path = folder / "boxes.csv"
    Image.new("RGB", (64, 48)).save(folder / "images" / "b.png")
    path.write_text("image,split,label,xmin,ymin,xmax,ymax\na.png,train,cat,1,1,9,9\nb.png,test,cat,1,1,9,9\n")
    found = box_files.read(path, skip_bad=False)
    assert found is not None
    assert found.columns["split"] == ["train", "test"]
    assert any("'split'" in note for note in found.notes)


def test_coco_that_is_wrong(tmp_path: Path) -> None:
    path = tiny_boxes.write_coco(tmp_path, 4)
    whole = json.loads(path.read_text())
    whole["annotations"][0]["category_id"] = 99
    whole["annotations"][1]["image_id"] = 99
    whole["annotations"][2]["bbox"] = [1, 2]
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"annotations\[0\]: category_id 99: an unknown category.*Expected the id of one of 'categories'"):
        box_files.read(path, skip_bad=False)
    found = box_files.read(path, skip_bad=True)
    assert found is not None
    assert sum(found.left_out.values()) == 3
    del whole["categories"]
    path.write_text(json.dumps(whole))
    with pytest.raises(FileUnreadable, match="'categories'"):
        box_files.read(path, skip_bad=False)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_coco_without_one_of_its_keys_is_no_text(key: str, tmp_path: Path) -> None:
    path = tiny_boxes.write_coco(tmp_path, 4)
    whole = json.loads(path.read_text())
    del whole[key]
    path.write_text(json.dumps(whole))
    with pytest.raises(FileUnreadable, match=f"no list of objects '{key}'"):
        box_files.read(path, skip_bad=False)


def test_yolo_that_is_wrong(tmp_path: Path) -> None:
    folder = tiny_boxes.write_yolo(tmp_path, 4)
    (folder / "labels" / "0-001.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"0-001.txt, line 1.*unknown class.*Expected the number of one of the 2 classes .*0 to 1"):
        box_files.read(folder, skip_bad=False)
    (folder / "labels" / "0-001.txt").write_text("0 0.5 0.5 0.1\n")
    with pytest.raises(DataError, match="Expected five numbers, class cx cy w h"):
        box_files.read(folder, skip_bad=False)
    (folder / "labels" / "0-001.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")  # a polygon
    (folder / "labels" / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"lost.txt.*missing"):
        box_files.read(folder, skip_bad=False)
    found = box_files.read(folder, skip_bad=True)
    assert found is not None
    np.testing.assert_allclose(found.columns["label"][1].corners, [[6.4, 4.8, 32, 24]], atol=1e-4)


def test_damaged_names_of_yolo_are_named_with_their_line(tmp_path: Path) -> None:
    folder = tiny_boxes.write_yolo(tmp_path, 4)
    (folder / "data.yaml").write_text("path: here\nnames: {0: cat\n1: dog\n")
    with pytest.raises(FileUnreadable, match=r"data.yaml, line [34]: while parsing"):
        box_files.read(folder, skip_bad=False)


def test_xml_with_entities_is_not_read(tmp_path: Path) -> None:
    folder = tiny_boxes.write_voc(tmp_path, 4)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbb"><!ENTITY c "&b;&b;">]><annotation><filename>&c;</filename></annotation>'
    (folder / "Annotations" / "0-001.xml").write_text(bomb)
    with pytest.raises(DataError, match="entities"):
        box_files.read(folder, skip_bad=False)
    (folder / "Annotations" / "0-001.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"damaged XML.*Expected a whole XML file"):
        box_files.read(folder, skip_bad=False)


def test_folders_of_splits_are_named(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        tiny_boxes.write_yolo(tmp_path / split, 2)
    with pytest.raises(DataError, match="splits") as raised:
        box_files.read(tmp_path, skip_bad=False)
    assert str(tmp_path / "train") in raised.value.do


def test_images_on_their_side_and_frames(folder: Path) -> None:
    import pandas as pd

    turned = Image.new("RGB", (64, 48))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(folder / "images" / "turned.jpg", exif=exif)
    frame = pd.DataFrame({"image": [str(folder / "images" / "turned.jpg")], "label": ["cat"], "x1": [1], "y1": [50], "x2": [9], "y2": [60]})
    found = box_files.read(frame, skip_bad=False)
    assert found is not None
    assert found.columns["label"][0].size == (48, 64)


def test_what_holds_no_boxes_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nhello,1\n")
    assert box_files.read(tmp_path / "a.csv", skip_bad=False) is None
    assert box_files.read({"image": ["a.png"], "label": ["cat"]}, skip_bad=False) is None
    assert box_files.read(["a.png"], skip_bad=False) is None


def test_overlaps() -> None:
    found = overlaps(np.array([[0, 0, 2, 2], [5, 5, 5, 5]]), np.array([[1, 0, 3, 2], [0, 0, 2, 2]]))
    np.testing.assert_allclose(found, [[1 / 3, 1], [0, 0]])
