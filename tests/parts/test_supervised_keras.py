"""Families of Keras in the objective ``supervised``: narrower, resumed to the bit, opened again by ``adapt`` in another process."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import PREDICT, in_a_fresh_process
from tiny_images import write_folder
from warmstart import api, cli
from warmstart.core import registry
from warmstart.core.errors import BadOption, MissingLibrary
from warmstart.engine import convnets, keras_families, loop, store
from warmstart.engine.convnets import Asked
from warmstart.engine.learner import Setting

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, when it reads a tensor of torch


class Killed(Exception):
    """Stands for a kill: nothing of the loop runs after it."""


def _prepared(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    data = write_folder(folder / "images", 60, side=16)
    setting = Setting(data=str(data), folder=folder, settings=settings or {})
    return registry.create("objectives", "supervised", options=options).prepare(setting)


def _drive(learner: Any, folder: Path, precision: torch.dtype = torch.float32) -> loop.Outcome:
    return loop.run(learner, loop.How(folder, 0, torch.device("cpu"), precision))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """EfficientNet drops whole blocks at random, and keeps running statistics; Keras has both among the weights."""
    family = "keras:EfficientNetB0"
    whole = _prepared(tmp_path, family=family, batch=12, steps=5)
    assert json.loads(json.dumps(whole.settings)) == whole.settings
    cut, resumed = (_prepared(tmp_path, whole.settings, family=family) for _ in range(2))
    start = cut.module.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in whole.module.state_dict().items())
    first = [parameter.detach().clone() for parameter in whole.module.parameters()]
    learn, seen = cut.learn, [0]

    def kill(*args: Any) -> Any:
        seen[0] += 1
        if seen[0] == 4:
            raise Killed
        return learn(*args)

    cut.learn = kill
    _drive(whole, tmp_path / "whole", torch.bfloat16)  # which Keras leaves alone
    with pytest.raises(Killed):
        _drive(cut, tmp_path / "cut")
    outcome = _drive(resumed, tmp_path / "cut")
    assert outcome.steps == 5
    trained = whole.module.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in resumed.module.state_dict().items())
    pairs = zip(whole.module.named_parameters(), first, strict=True)
    moved = {name.split("/")[-1] for (name, value), before in pairs if not torch.equal(value, before)}
    assert {"kernel", "gamma", "moving_mean", "moving_variance", "weight"} <= {name.split(".")[-1] for name in moved}
    assert all(bool(value.isfinite().all()) for value in trained.values())


def test_adapt_starts_from_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "images", 60, side=16)
    options = {"objective": {"family": "keras:VGG16", "width": 8, "steps": 3, "batch": 16}}
    report = api.pretrain(data, out=tmp_path / "body", objective="supervised", options=options)
    assert report is not None
    assert report.parameters < 300_000
    names = {path.name for path in (tmp_path / "body").iterdir()}
    assert {"config.json", "model.safetensors", "card.json", "report.html"} <= names
    args = ["adapt", str(data), "--backbone", str(tmp_path / "body"), "--strategy", "linear_probe", "--out", str(tmp_path / "m"), "--json"]
    assert cli.main(args) == 0
    assert json.loads(capsys.readouterr().out)["strategy"] == "linear_probe"
    image = next(data.rglob("*.png"))
    here = [[float.hex(p) for p in row["probabilities"].values()] for row in api.load(tmp_path / "m").predict([image])]
    assert json.loads(in_a_fresh_process(PREDICT, tmp_path / "m", image)) == here


@pytest.mark.parametrize(("name", "side"), [("InceptionV3", 75), ("DenseNet121", 32)])
def test_a_quarter_of_the_filters(name: str, side: int) -> None:
    assert convnets.least(f"keras:{name}") == side
    body = convnets.build(convnets.form(Asked(f"keras:{name}", "tiny", (1, side, side))))
    state = body.eval()(pixel_values=torch.zeros(2, 1, side, side))[0]
    assert state.shape == (2, 2048 // 4 if name == "InceptionV3" else 1024 // 4, 1, 1)


def test_small_images_are_enlarged_to_what_the_network_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _prepared(tmp_path, family="keras:VGG16", width=8, steps=1, batch=8)
    assert learner.stream.images.shape == (3, 32, 32)
    learner.save(tmp_path / "body")
    assert store.read_config(tmp_path / "body")["image"]["size"] == [32, 32]
    with pytest.raises(BadOption, match="at least 32"):
        _prepared(tmp_path, family="keras:VGG16", pixels=16)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'warmstart\[keras\]'"):
        _prepared(tmp_path, family="keras:VGG16")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked("keras:Inception3", "tiny", (3, 75, 75)), "Did you mean 'InceptionV3'"),
        (Asked("keras:VGG16", "tiny", (3, 32, 32), depth=3), "depth"),
        (Asked("keras:VGG16", "tiny", (3, 32, 32), values='{"colour": 3}'), "colour"),
        (Asked("keras:NASNetLarge", "tiny", (3, 32, 32), values='{"penultimate_filters": 7}'), "penultimate_filters"),
    ],
)
def test_what_cannot_be_made_is_refused(asked: Asked, said: str) -> None:
    with pytest.raises(BadOption, match=said):
        convnets.build(convnets.form(asked))


def test_a_network_that_is_not_on_torch_says_why() -> None:
    with pytest.raises(BadOption, match="torch backend"):
        keras_families.least("NASNetMobile")
