"""adapt, predict and evaluate on images: every kind of body, and models without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from processes import PREDICT, in_a_fresh_process
from tiny_images import drawings, hf_backbone, tiny_image_backbone, write_folder
from warmstart import cli
from warmstart.core.card import Card
from warmstart.engine import bodies, model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 training images: enough for a single split, so that every strategy is fitted once."""
    folder = tmp_path_factory.mktemp("drawings")
    write_folder(folder / "train", 2000, side=14)
    write_folder(folder / "test", 30, seed=1, side=14)
    return folder


@pytest.fixture(scope="module")
def bodies_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("bodies") / name
        if name not in made:
            made[name] = tiny_image_backbone(folder) if name == "convnet" else mlp(folder) if name == "mlp" else hf_backbone(name, folder)
        return made[name]

    return make


def mlp(folder: Path) -> Path:
    image = {"size": [12, 12], "channels": 1, "mean": [0.5], "std": [0.25]}
    config = {"model_type": "warmstart-mlp", "sizes": [144, 24, 16, 12], "activation": "relu", "image": image}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bodies.save(bodies.build(config), folder)
    return folder


def adapt(data: Path, out: Path, *flags: str | Path) -> int:
    args = ["adapt", data / "train", "--test", data / "test", "--out", out, "--budget", "2m", "--quiet", "--precision", "float32", *flags]
    return cli.main(list(map(str, args)))


RUNS = [
    *[(body, strategy) for body in ("vit", "resnet", "convnet", "mlp") for strategy in ("linear_probe", "tail", "full")],
    *[("vit", "lora"), ("mlp", "lora"), ("mobilenet_v2", "tail")],
]


@pytest.mark.parametrize(("body", "strategy"), RUNS, ids=lambda value: value)
def test_every_body(body: str, strategy: str, data: Path, bodies_of: Callable[[str], Path], tmp_path: Path) -> None:
    short = [] if strategy == "linear_probe" else ["--set", "strategy.epochs=0.4", "--set", "strategy.contrastive=2"]
    out = tmp_path / "model"
    assert adapt(data, out, "--backbone", bodies_of(body), "--strategy", strategy, *short) == 0
    report = json.loads((out / "report.json").read_text())
    random_is_enough = body != "mobilenet_v2"  # at four channels and without training its states are all but constant
    assert report["metrics"]["accuracy"]["value"] > (0.5 if random_is_enough else 0.3)
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["modality"] == "image"
    card = Card.read(out)
    assert card.backbone.opened_by == ("warmstart" if body in ("convnet", "mlp") else "transformers")
    assert "pipeline_tag: image-classification" in (out / "README.md").read_text()
    loaded = model.load(out)
    files = sorted(map(str, (data / "test").rglob("*.png")))[:7]
    by_file = loaded.predict(files)
    assert loaded.predict([Image.open(file) for file in files]) == by_file
    assert loaded.predict([np.asarray(Image.open(file)) for file in files]) == by_file


@pytest.mark.parametrize("body", ["resnet", "mlp"])
def test_a_fresh_process_predicts_the_same(body: str, data: Path, bodies_of: Callable[[str], Path], tmp_path: Path) -> None:
    assert adapt(data, tmp_path / "m", "--backbone", bodies_of(body), "--strategy", "full", "--set", "strategy.epochs=0.4") == 0
    files = sorted(map(str, (data / "test").rglob("*.png")))
    printed = in_a_fresh_process(PREDICT, str(tmp_path / "m"), *files)
    here = model.load(tmp_path / "m").predict(files)
    assert json.loads(printed) == [list(map(float.hex, r["probabilities"].values())) for r in here]


def test_a_native_head_is_what_transformers_opens(data: Path, bodies_of: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import pipeline

    out = tmp_path / "model"
    assert (
        adapt(
            data, out, "--backbone", bodies_of("vit"), "--strategy", "full", "--set", "strategy.epochs=0.4", "--set", "strategy.head=native"
        )
        == 0
    )
    file = str(next((data / "test").rglob("*.png")))
    theirs = pipeline("image-classification", model=str(out), image_processor=str(out), device="cpu")(file, top_k=3)
    ours = model.load(out).predict([file])[0]["probabilities"]
    for found in theirs:
        assert found["score"] == pytest.approx(ours[found["label"]], abs=1e-4)


def test_without_a_backbone(data: Path, tmp_path: Path, warmstart: Callable[..., tuple[int, Any, str]]) -> None:
    out = tmp_path / "model"
    code, report, _ = warmstart("adapt", data / "train", "--test", data / "test", "--out", out, "--budget", "1m", "--quiet", "--views", "2")
    assert code == 0
    assert [rung["strategy"] for rung in report["ladder"]] == ["majority", "classic"]
    views = [warning for warning in report["warnings"] if "views" in warning]
    assert views == ["no rung with a body was climbed, so nothing learned from the 2 augmented views of each training row"]
    assert any("--backbone" in warning for warning in report["warnings"])
    assert report["metrics"]["accuracy"]["value"] > 0.8
    code, records, _ = warmstart("predict", out, data / "test")
    assert code == 0
    assert len(records) == 30
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").touch()
    (tmp_path / "sound.wav").touch()
    (tmp_path / "notes.xyz").touch()
    for name, said in {
        "empty": "empty is empty. Expected images (.jpg, .jpeg, .png",
        "other": "other holds no images. Expected images (.jpg, .jpeg, .png",
        "sound.wav": "sound.wav is a recording, and this model takes images. Expected images (.jpg",
        "notes.xyz": "unknown extension '.xyz'. Expected images (.jpg",
    }.items():
        for verb in ("predict", "evaluate"):
            code, _, err = warmstart(verb, out, tmp_path / name)
            assert code == 2
            assert said in err
    code, _, err = warmstart("adapt", tmp_path / "other", "--out", tmp_path / "new")
    assert code == 2
    assert "other holds no recordings or images" in err or "other holds no images or recordings" in err
    assert all(Path(record["input"]).parent.name in ("across", "diagonal", "down") for record in records)
    code, one, _ = warmstart("predict", out, records[0]["input"])
    assert code == 0
    assert one["probabilities"] == pytest.approx(records[0]["probabilities"], abs=1e-6)
    code, two, _ = warmstart("predict", out, records[0]["input"], records[9]["input"])
    assert [record["label"] for record in two] == [records[0]["label"], records[9]["label"]]
    code, measured, _ = warmstart("evaluate", out, data / "test")
    assert measured["metrics"]["accuracy"] == report["metrics"]["accuracy"]
    assert warmstart("predict", out, data / "test", "--out", tmp_path / "found.csv")[0] == 0
    header, first, *_ = (tmp_path / "found.csv").read_text().splitlines()
    assert header.startswith("row,image,label,probability")
    assert records[0]["input"] in first


def test_a_wrong_backbone_or_file(data: Path, tmp_path: Path, backbone: Path, warmstart: Callable[..., tuple[int, Any, str]]) -> None:
    code, found, _ = warmstart("adapt", data / "train", "--out", tmp_path / "a", "--backbone", backbone)
    assert (code, found["error"]["kind"]) == (2, "BackboneNotFound")
    code, found, _ = warmstart("adapt", data / "train", "--out", tmp_path / "a", "--strategy", "full")
    assert code == 2
    assert "--backbone" in found["error"]["do"]
    assert not (tmp_path / "a").exists()


def test_the_report_shows_pictures(data: Path, bodies_of: Callable[[str], Path], tmp_path: Path) -> None:
    train = tmp_path / "data" / "train"
    for i, (pixels, label) in enumerate(drawings(60)):
        place = train / (label if i % 4 else "down")  # wrong labels make confident errors
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i}.png")
    write_folder(tmp_path / "data" / "test", 30, seed=2)
    assert adapt(tmp_path / "data", tmp_path / "model", "--backbone", bodies_of("convnet"), "--strategy", "linear_probe") == 0
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["errors"]
    assert all(case["picture"].startswith("data:image/png;base64,") for case in report["errors"])
    assert all(near["picture"] for case in report["errors"] for near in case["neighbours"])
    page = (tmp_path / "model" / "report.html").read_text()
    assert page.count('<img class="picture"') == sum(1 + len(case["neighbours"]) for case in report["errors"])
    assert "longer side in pixels" in page
    assert report["data"]["unit"] == "pixels"
    assert len(page) < 2_000_000


def test_views_are_learned_from_and_give_the_same_bits_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, body = write_folder(tmp_path / "few", 60, side=14), hf_backbone("vit", tmp_path / "body")
    test = write_folder(tmp_path / "test", 12, seed=1, side=14)
    flags = ["--test", test, "--backbone", body, "--strategy", "tail", "--quiet", "--set", "strategy.epochs=0.2"]
    flags += ["--set", "strategy.contrastive=1", "--precision", "float32", "--budget", "2m", "--views", "2"]
    runs = [tmp_path / "first", tmp_path / "again"]
    for out in runs:
        assert cli.main(list(map(str, ["adapt", folder, "--out", out, *flags]))) == 0
    assert len({(out / "model.safetensors").read_bytes() for out in runs}) == 1
    assert json.loads((runs[0] / "recipe.json").read_text())["views"] == 2
    assert Card.read(runs[0]).data.views == 2
    assert any("2 augmented views" in warning for warning in json.loads((runs[0] / "report.json").read_text())["warnings"])
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\n" + "good,a\nbad,b\n" * 9)
    capsys.readouterr()
    assert cli.main(["adapt", str(texts), "--backbone", "none", "--views", "2", "--out", str(tmp_path / "text")]) == 2
    assert "views = 2 with text" in capsys.readouterr().err
