"""Augmented views with LoRA and full: the same bits after a kill and from the recipe, on images and on sound."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import tiny_sound
from processes import stopped
from tiny_images import hf_backbone, write_folder
from warmstart import cli
from warmstart.samples import tiny_sound_backbone


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("images")
    return [str(write_folder(place / "few", 40, side=14)), "--backbone", str(hf_backbone("vit", place / "body"))]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("sounds")
    return [str(tiny_sound.folder(place / "few", 40)), "--backbone", str(tiny_sound_backbone(place / "body"))]


def command(data: list[str], strategy: str) -> list[str]:
    flags = f"--views 2 --strategy {strategy} --set strategy.epochs=0.3 --set strategy.contrastive=2 --budget 10m --quiet"
    return ["adapt", *data, *flags.split()]


def weights(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strategy"), [("images", "lora"), ("sounds", "full")])
def test_a_resumed_run_and_its_recipe_give_the_same_bits(kind: str, strategy: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(kind)
    args = [*command(data, strategy), "--out", str(tmp_path / "killed")]
    stopped(args, tmp_path / "killed.partial" / ".work" / "rungs" / strategy / "fold1.json", signal.SIGKILL)
    assert cli.main(args) == 0
    assert (
        cli.main(["adapt", data[0], "--recipe", str(tmp_path / "killed" / "recipe.json"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    )
    assert weights(tmp_path / "again") == weights(tmp_path / "killed")
    killed, again = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("killed", "again"))
    assert again["metrics"] == killed["metrics"]
    assert killed["ladder"][0]["chosen"]
