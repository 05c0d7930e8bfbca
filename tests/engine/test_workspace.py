"""The folder in which a run works: resumed by the same run, refused to another, and whole or not there."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart.core.errors import BudgetTooSmall, FolderExists, TrainingFailed
from warmstart.core.recipe import Recipe
from warmstart.engine.clock import Clock
from warmstart.engine.workspace import Workspace

RECIPE = Recipe(data="a.csv", budget=60, options={"strategy": {"epochs": 2}})


def begin(out: Path, *, recipe: Recipe = RECIPE, rows: str = "hash", force: bool = False) -> tuple[Workspace, Clock]:
    """Open the folder as a run does, and stop as if it were killed."""
    space, clock = Workspace(out, force=force), Clock(60)
    with space.alone():
        space.open(recipe, rows, clock)
    return space, clock


def test_the_same_run_goes_on_and_its_time_counts(tmp_path: Path) -> None:
    first, clock = begin(tmp_path / "m")
    assert (first.resumed, clock.spent_before) == (False, 0.0)
    (first.work / "rung.json").write_text("{}")
    os.utime(first.work / "rung.json", (2e9, 2e9))  # the last thing that it wrote
    (first.partial / "model.safetensors").write_bytes(b"half")
    again, clock = begin(tmp_path / "m", recipe=dataclasses.replace(RECIPE, data="moved/a.csv"))
    assert again.resumed
    assert clock.spent_before > 1e7
    assert (again.work / "rung.json").exists()
    assert not (again.partial / "model.safetensors").exists()  # saved anew in any case


def test_a_run_goes_on_with_more_time(tmp_path: Path) -> None:
    """What "give a larger --budget" advises, without losing what was done."""
    first, _ = begin(tmp_path / "m")
    (first.work / "rung.json").write_text("{}")
    again, clock = begin(tmp_path / "m", recipe=dataclasses.replace(RECIPE, budget=200))
    assert again.resumed
    assert clock.spent_before > 0
    assert (again.work / "rung.json").exists()


@pytest.mark.parametrize("other", [{"recipe": dataclasses.replace(RECIPE, seed=1)}, {"rows": "other"}])
def test_another_run_is_refused_unless_forced(other: dict[str, object], tmp_path: Path) -> None:
    first, _ = begin(tmp_path / "m")
    (first.work / "rung.json").write_text("{}")
    with pytest.raises(FolderExists, match="interrupted run with other settings"):
        begin(tmp_path / "m", **other)  # type: ignore[arg-type]
    assert (first.work / "rung.json").exists()
    forced, clock = begin(tmp_path / "m", force=True, **other)  # type: ignore[arg-type]
    assert (forced.resumed, clock.spent_before) == (False, 0.0)
    assert not (first.work / "rung.json").exists()


def test_somebody_elses_folder_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "m.partial" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(FolderExists, match="something else"):
        begin(tmp_path / "m", force=True)
    assert theirs.read_text() == "mine"


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(FolderExists, match="exists already"):
        Workspace(tmp_path / "m", force=False)
    Workspace(tmp_path / "m", force=True)  # empty
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    with pytest.raises(FolderExists, match="no model folder"):
        Workspace(tmp_path / "m", force=True)


def test_published_in_one_step_over_an_old_model(tmp_path: Path) -> None:
    out = tmp_path / "m"
    for content in ("old", "new"):
        space, _ = begin(out, force=content == "new")
        (space.partial / "card.json").write_text(content)
        assert out.exists() == (content == "new")
        space.publish()
        assert [path.name for path in out.iterdir()] == ["card.json"]
        assert (out / "card.json").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_wrong_input_leaves_no_new_folder_but_keeps_an_old_one(tmp_path: Path) -> None:
    def run(space: Workspace, error: Exception) -> None:
        with space.alone():
            space.open(RECIPE, "hash", Clock(60))
            raise error

    def fail(error: Exception) -> Workspace:
        space = Workspace(tmp_path / "m", force=False)
        with pytest.raises(type(error)):
            run(space, error)
        return space

    assert not fail(BudgetTooSmall("little")).partial.exists()
    assert fail(TrainingFailed("nan")).partial.exists()
    assert fail(BudgetTooSmall("little")).partial.exists()  # work of an earlier attempt is in it


HOLD = """
import sys
from pathlib import Path
from warmstart.engine.workspace import Workspace
with Workspace(Path(sys.argv[1]), force=True).alone():
    print("in", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    first, _ = begin(tmp_path / "m")
    (first.work / "rung.json").write_text("{}")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "m")], **pipes, text=True) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "in\n"
        for force in (False, True):
            with pytest.raises(FolderExists, match="another process"):
                begin(tmp_path / "m", recipe=dataclasses.replace(RECIPE, seed=5), force=force)
        assert (first.work / "rung.json").exists()
        other.kill()
    assert begin(tmp_path / "m")[0].resumed  # a lock does not outlive its process
