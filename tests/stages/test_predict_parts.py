"""predict over many pictures: in parts, each read while the last is answered, with the same answers as all at once."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_images import hf_backbone, write_folder
from warmstart import cli
from warmstart.core.errors import DataError
from warmstart.engine import model as models
from warmstart.engine.ahead import ahead
from warmstart.engine.answers import Files
from warmstart.parts.modalities import image

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parts")
    data, body = write_folder(place / "data", 60, side=14), hf_backbone("resnet", place / "body")
    flags = ["--backbone", str(body), "--strategy", "linear_probe", "--budget", "60s", "--quiet"]
    assert cli.main(["adapt", str(data), "--out", str(place / "model"), *flags]) == 0
    return place / "model"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.Part, "at_once", 4)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_parts_give_the_same_file(suffix: str, model: Path, tmp_path: Path, warmstart: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_folder(tmp_path / "new", 10, seed=2, side=14)
    assert warmstart("predict", model, data, "--out", tmp_path / f"whole{suffix}")[0] == 0
    monkeypatch.setattr(image.Part, "at_once", 4)
    code, printed, _ = warmstart("predict", model, data, "--out", tmp_path / f"parts{suffix}")
    assert (code, printed["rows"]) == (0, 10)
    assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_bad_pictures_are_counted_wherever_they_are(model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_folder(tmp_path / "new", 10, seed=2, side=14)
    files = sorted(data.rglob("*.png"))
    for path in files[4:8]:  # a whole part
        path.write_bytes(path.read_bytes()[:60])
    code, printed, err = warmstart("predict", model, data, "--skip-bad")
    assert code == 0
    assert [record["row"] for record in printed] == [1, 2, 3, 4, 9, 10]
    named = ", ".join(str(path.relative_to(data)) for path in files[4:8])
    assert re.search(rf"note: 4 rows of {data} were left out: [a-z ]+ \({named}\)\n", err)
    code, printed, err = warmstart("predict", model, *files[:5], "--skip-bad")
    assert (code, len(printed)) == (0, 4)
    assert f"note: 1 row of the list was left out: truncated image ({files[4]})" in err
    out = tmp_path / "out.csv"
    code, printed, _ = warmstart("predict", model, data, "--out", out)
    assert code == 2
    assert str(files[4]) in printed["error"]["given"]
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
    for path in files:
        path.write_bytes(b"no image")
    code, printed, _ = warmstart("predict", model, data, "--skip-bad")
    assert code == 2
    assert "none of 10 rows" in printed["error"]["given"]


@pytest.mark.usefixtures("small_parts")
def test_a_list_keeps_its_numbers(model: Path, tmp_path: Path) -> None:
    files: list[Any] = sorted(write_folder(tmp_path / "new", 9, seed=2, side=14).rglob("*.png"))
    loaded = models.load(model)
    found = [part.inputs for part in loaded.parts(files, column={}, skip_bad=False)]
    assert [len(part) for part in found] == [4, 4, 1]
    assert loaded.probabilities([value for part in found for value in part]).shape[0] == 9
    files[6].write_bytes(b"")
    with pytest.raises(DataError, match=r"input 7: .*empty file"):
        list(loaded.parts(files, column={}, skip_bad=False))


def test_the_next_is_made_while_the_last_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]
    for i in ahead(lambda i: begun[i].set() or i, range(3)):
        assert begun[min(i + 1, 2)].wait(10)

    def broken(i: int) -> int:
        if i == 1:
            raise ValueError("broken")
        return i

    made = ahead(broken, range(5))
    assert next(made) == 0
    with pytest.raises(ValueError, match="broken"):
        next(made)


def test_answers_that_are_files_never_take_the_same_name() -> None:
    files = Files(Path())
    assert [files.name(source) for source in ("a/x.png", "b/x.png", "array of 2x2 pixels", "c/x.jpg")] == ["x", "x-2", "00003", "x-4"]


@pytest.mark.usefixtures("small_parts")
def test_json_comes_line_by_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "new", 10, seed=2, side=14)
    sorted(data.rglob("*.png"))[-1].write_bytes(b"")
    assert cli.main(["predict", str(model), str(data), "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines[:-1]] == list(range(1, 9))  # of the parts before the bad one
    assert "empty file" in lines[-1]["error"]["given"]
