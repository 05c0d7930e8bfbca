"""Going on with pre-training: what is looked at before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_images import write_folder
from warmstart.core.errors import DataError, FileNotFound, InputError
from warmstart.core.recipe import Recipe
from warmstart.engine import continued


@pytest.mark.parametrize(("name", "words"), [("a.txt", "hold no images"), ("empty", "hold no images"), ("a.xyz", "hold no images")])
def test_images_are_expected_where_the_rows_are_images(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("a.txt", "a.xyz"):
        (tmp_path / file).write_text("one text\n\nanother\n")
    with pytest.raises(DataError, match=words):
        continued.check(Recipe(modality="image", unlabelled=str(tmp_path / name)))


def test_what_is_there_passes(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", 3)
    continued.check(Recipe(modality="image", unlabelled=str(tmp_path / "images")))
    continued.check(Recipe(modality="text"))
    gone = Recipe(modality="image", unlabelled=str(tmp_path / "none"))
    with pytest.raises(FileNotFound):
        continued.check(gone)
    continued.check(Recipe(modality="image", unlabelled=gone.unlabelled, plan={"unlabelled": {"kept": False}}))


def test_sounds_are_expected_where_the_rows_are_sounds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nnot a recording\n")
    with pytest.raises(InputError, match="hold no recordings"):
        continued.check(Recipe(modality="audio", unlabelled=str(tmp_path / "a.csv")))
