"""Masks are read from every form that people keep them in, with their names; broken ones are told apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tiny_masks
from warmstart.core.errors import DataError, FileUnreadable
from warmstart.engine import mask_figures, mask_files, masks, palette
from warmstart.engine.answers import Files
from warmstart.engine.images import Picture

CELLS = np.array([[0, 0, 1, 7], [0, 1, 1, 255]], np.uint8)
COLOURS = np.zeros((2, 4, 3), np.uint8)
COLOURS[:, 2:] = (64, 128, 64)


def named(mask: masks.Mask) -> list[list[str]]:
    return [[mask.values[c] for c in row] for row in mask.cells]


@pytest.mark.parametrize("form", ["L", "P", "I;16", "array", "file", "bytes", "struct"])
def test_every_form_gives_the_same_numbers(form: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(CELLS).save(path)
    palette = Image.fromarray(CELLS)
    palette.putpalette(bytes(range(256)) * 3)
    given = {
        "L": Image.fromarray(CELLS),
        "P": palette,
        "I;16": Image.fromarray(CELLS.astype(np.uint16)),
        "array": CELLS.astype(np.int32),
        "file": "mask.png",
        "bytes": path.read_bytes(),
        "struct": {"bytes": path.read_bytes(), "path": None},
    }[form]
    found = masks.read(given, folder=tmp_path)
    assert found.problem == ""
    assert named(found) == [["0", "0", "1", "7"], ["0", "1", "1", "255"]]
    assert found.size == (4, 2)


def test_colours_are_values_and_grey_ones_numbers() -> None:
    coloured = masks.read(COLOURS)
    assert named(coloured)[0] == ["#000000", "#000000", "#408040", "#408040"]
    grey = masks.read(np.repeat(CELLS[..., None], 3, 2))
    assert [m.values for m in masks.grey_where_all_are([grey, grey])] == [("0", "1", "7", "255")] * 2
    assert masks.grey_where_all_are([grey, coloured])[0].values[0] == "#000000"


def test_a_large_mask_comes_down_without_new_classes() -> None:
    cells = np.zeros((1200, 900), np.uint8)
    cells[600:] = 200
    found = masks.read(cells)
    assert found.size == (900, 1200)
    assert found.cells.shape == (512, 384)
    assert found.values == ("0", "200")
    assert (found.cells == 1).mean() == 0.5


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.png", None, "no such mask"),
        ("a.jpg", b"\xff\xd8\xff", "JPEG"),
        ("a.png", b"", "no PNG"),
        ("a.png", b"text", "no PNG"),
        ("a.png", "cut", "damaged mask"),
        ("a.png", "photo", "more than 256 values"),
        ("a.tif", "float", "no whole numbers|mode F"),
    ],
)
def test_broken_masks_are_told_apart(name: str, content: bytes | str | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:200])
    elif content == "photo":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(path)
    elif content == "float":
        Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert re.search(problem, masks.read(str(path)).problem)


@pytest.mark.parametrize(
    ("images", "folder", "source"),
    [
        ("images", "masks", ""),
        ("JPEGImages", "SegmentationClass", ""),
        ("train", "trainannot", "train"),
        ("train", "train_masks", "train"),
        ("images/train", "annotations/train", "images/train"),
    ],
)
def test_folders_of_the_same_stems(images: str, folder: str, source: str, tmp_path: Path) -> None:
    tiny_masks.write(tmp_path, 3, images=images, masks=folder)
    next((tmp_path / folder).iterdir()).unlink()
    table = mask_files.read(str(tmp_path / source), skip_bad=False)
    assert table is not None
    assert len(table.columns["image"]) == 3
    found = table.columns["mask"]
    assert sum(mask.problem == "no such mask" for mask in found) == 1
    mask = next(value for value in found if not value.problem)
    assert mask.names == {"0": "sky", "1": "ground", "2": "box"}
    assert "ground" in str(mask)


def test_folders_without_masks_are_not_ours_and_splits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(COLOURS).save(tmp_path / "images" / "a.png")
    assert mask_files.read(str(tmp_path), skip_bad=False) is None
    for split in ("train", "val"):
        tiny_masks.write(tmp_path / "data", 2, images=split, masks=f"{split}annot")
    with pytest.raises(DataError, match=r"are splits \(train, val\).*--test"):
        mask_files.read(str(tmp_path / "data"), skip_bad=False)


def test_masks_without_images_of_their_name(tmp_path: Path) -> None:
    tiny_masks.write(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="is named like an image"):
        mask_files.read(str(tmp_path), skip_bad=False)


def test_tables_and_frames_with_two_columns(tmp_path: Path) -> None:
    tiny_masks.write(tmp_path, 3)
    rows = [{"image": f"images/0-{i:03}.png", "mask": f"masks/0-{i:03}.png"} for i in range(3)]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    table = mask_files.read(str(tmp_path / "rows.csv"), skip_bad=False)
    assert table is not None
    assert table.columns["mask"][0].names["2"] == "box"
    arrays = {"image": [p for p, _ in tiny_masks.pictures(2)], "mask": [c for _, c in tiny_masks.pictures(2)]}
    in_memory = mask_files.read(arrays, skip_bad=False)
    assert in_memory is not None
    assert in_memory.columns["mask"][0].values == ("0", "1", "2", "255")
    assert mask_files.read({"text": ["a"], "mask": ["[MASK]"]}, skip_bad=False) is None


def test_files_of_names(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for text, wanted in (
        ("sky\nroad marking\n", {"0": "sky", "1": "road marking"}),
        ("3 sky\n7: road\n", {"3": "sky", "7": "road"}),
        ("64 128 64\tAnimal\n0,0,0,Void\n", {"#408040": "Animal", "#000000": "Void"}),
        ("Animal 64 128 64\nVoid 0 0 0\n", {"#408040": "Animal", "#000000": "Void"}),
    ):
        path.write_text(text)
        assert mask_files.names_in(tmp_path) == wanted
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileUnreadable):
        mask_files.names_in(tmp_path)


def test_written_masks_read_back_as_they_were(tmp_path: Path) -> None:
    maps = np.array([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], np.uint8)
    values = [(Picture(COLOURS, "x/a.png", size=(6, 4)),), (Picture(COLOURS, "y/a.png", size=(2, 2)),)]
    paths = mask_figures.write(maps, ("3", "9"), values, Files(tmp_path))
    first, second = (masks.read(p) for p in paths)
    assert first.size == (6, 4)
    assert named(second) == [["9", "3"], ["3", "3"]]
    assert not (tmp_path / "classes.txt").exists()
    mask_figures.write(maps, ("road", "sky"), values, Files(tmp_path))
    assert mask_files.names_in(tmp_path) == {"0": "road", "1": "sky"}
    assert masks.read(paths[1]).values == ("0", "1")


def test_twenty_four_classes_have_colours_that_are_told_apart() -> None:
    """CIE76 of 5 is seen at a glance side by side; a class is looked up in a legend, so it is far more here."""
    lab = np.array([_lab(palette.of(c)) for c in range(24)])
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[np.triu_indices(24, 1)].min() > 25
    assert apart[np.triu_indices(12, 1)].min() > 35
    assert np.diagonal(apart, 1).min() > 40, "neighbours"
    assert len({palette.written(c) for c in range(60)}) == 60


def _lab(colour: tuple[int, int, int]) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour."""
    c = np.array(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_figures_show_both_maps() -> None:
    pixels, cells = tiny_masks.pictures(1)[0]
    drawn = mask_figures.picture(Picture(pixels, "a.png", size=(64, 48)), cells, np.zeros((8, 8), np.uint8), ("<sky>", "ground", "box"))
    assert drawn.count("data:image/jpeg") == 2
    assert "&lt;sky&gt;" in drawn
    assert "<sky>" not in drawn
