"""adapt, predict and evaluate tell the class of every pixel: a light decoder on frozen maps, and SegFormer with its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import tiny_masks
import warmstart
from processes import ANSWER, in_a_fresh_process
from tiny_images import hf_backbone
from warmstart import cli
from warmstart.core.card import Card
from warmstart.engine import store


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training images: enough for a single split."""
    folder = tmp_path_factory.mktemp("masks")
    tiny_masks.write(folder / "train", 200)
    tiny_masks.write(folder / "test", 20, seed=1)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_backbone("resnet", tmp_path_factory.mktemp("bodies") / "resnet")


@pytest.fixture(scope="module")
def model(data: Path, resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    assert adapted(data, resnet, out, "linear_probe", "--set", "task.width=16", "--set", "task.epochs=6") == 0
    return out


def adapted(data: Path, body: Path, out: Path, strategy: str, *extra: str) -> int:
    given = ["adapt", str(data / "train"), "--test", str(data / "test"), "--backbone", str(body), "--out", str(out), "--quiet"]
    return cli.main([*given, "--set", "modality.size=48x64", "--budget", "3m", "--strategy", strategy, *extra])


def segformer(folder: Path) -> Path:
    """A tiny random SegFormer, whole, as transformers saves it."""
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        sr_ratios=[2, 2, 1, 1],
        decoder_hidden_size=16,
        id2label={0: "sky", 1: "box", 2: "ground"},
        label2id={"sky": 0, "box": 1, "ground": 2},
        image_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = hf.SegformerForSemanticSegmentation(config)
    store.quiet_transformers()
    whole.eval().save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_decoder_on_frozen_maps(data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads((model / "report.json").read_text())
    assert report["task"] == "semantic_segmentation"
    metrics = report["metrics"]
    assert {"image_iou", "miou", "pixel_accuracy", "iou/sky", "iou/ground", "iou/box"} == set(metrics)
    assert metrics["miou"]["low"] <= metrics["miou"]["value"] <= metrics["miou"]["high"]
    assert metrics["miou"]["value"] > 0.6  # of a random body; the best constant answer has a third
    assert Card.read(model).labels == ("sky", "ground", "box")
    assert len(report["errors"]) == 16  # the twelve worst, and four others
    assert re.fullmatch(r"[a-z]+ \d+ %, .*", report["errors"][0]["predicted"])
    page = (model / "report.html").read_text()
    assert 'class="masks"' in page
    assert "IoU of each class" in page

    image = data / "test" / "images" / "1-001.png"
    found = warmstart.load(model).predict([str(image)])
    assert json.loads(in_a_fresh_process(ANSWER, model, image)) == found
    shares = found[0]["prediction"]["classes"]
    assert set(shares) <= {"box", "ground", "sky"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.001)

    assert cli.main(["evaluate", str(model), str(data / "test"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["miou"] == metrics["miou"]


def test_predict_writes_masks(data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found"
    assert cli.main(["predict", str(model), str(data / "test"), "--out", str(out), "--quiet"]) == 0
    records = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 20
    labels = (out / "classes.txt").read_text().split()
    with Image.open(records[0]["mask"]) as image:
        assert image.mode == "P"
        assert image.size == (64, 48)
        cells = np.asarray(image)
    truth = tiny_masks.pictures(1, seed=1)[0][1]
    names = np.array(tiny_masks.NAMES)[np.where(truth == 255, 0, truth)]
    assert (np.array(labels)[cells] == names).mean() > 0.7
    assert (cells == np.where(truth == 255, 0, truth)).mean() > 0.7  # with the numbers of the masks that were learnt from
    assert cli.main(["predict", str(model), str(data / "test"), "--out", str(out), "--quiet"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["tail", "full"])
def test_the_body_learns_too(strategy: str, data: Path, resnet: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert adapted(data, resnet, out, strategy, "--set", "task.epochs=1", "--set", "task.width=16") == 0
    assert json.loads((out / "report.json").read_text())["metrics"]["pixel_accuracy"]["value"] > 0.5
    assert len(warmstart.load(out).predict(str(data / "test"))) == 20


def test_patches_of_a_transformer_are_maps(data: Path, tmp_path: Path) -> None:
    vit = hf_backbone("vit", tmp_path / "vit")
    given = ["adapt", str(data / "train"), "--test", str(data / "test"), "--backbone", str(vit), "--out", str(tmp_path / "model")]
    options = ["--strategy", "linear_probe", "--set", "task.epochs=2", "--set", "task.width=16", "--budget", "3m", "--quiet"]
    assert cli.main([*given, *options]) == 0
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["metrics"]["pixel_accuracy"]["value"] > 0.5
    settings = store.read_object(tmp_path / "model" / "head.json")["settings"]
    assert settings["tokens"] is True
    assert settings["upsample"] == 4  # 16 pixels, four rows of two patches made twice as fine


def test_segformer_goes_on_from_its_own_decoder(data: Path, tmp_path: Path) -> None:
    body = segformer(tmp_path / "segformer")
    out = tmp_path / "model"
    assert adapted(data, body, out, "linear_probe", "--set", "task.epochs=1") == 0
    settings = store.read_object(out / "head.json")["settings"]
    assert settings["kind"] == "segformer"
    assert len(warmstart.load(out).predict(str(data / "test"))) == 20


def test_wrong_input_is_named(data: Path, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(folder: Path, *extra: str) -> str:
        given = ["adapt", str(folder), "--backbone", str(resnet), "--out", str(tmp_path / "out"), "--quiet", "--strategy", "majority"]
        assert cli.main([*given, *extra]) == 2
        return capsys.readouterr().err

    folder = tiny_masks.write(tmp_path / "data", 12)
    (folder / "masks" / "0-003.png").unlink()
    said = fails(folder)
    assert f"{folder}/masks/0-003.png: no such mask" in said
    assert "Expected for each image a mask" in said
    assert f"{folder}/masks/0-003.png: no such mask" in fails(folder, "--task", "semantic-segmentation")
    Image.new("L", (10, 40)).save(folder / "masks" / "0-003.png")
    for extra in ((), ("--task", "semantic-segmentation")):
        said = fails(folder, *extra)
        assert "0-003.png: a mask of another form than its image: 10 x 40 for 64 x 48" in said
        assert "Expected for each image a mask with the same ratio of sides" in said
    (folder / "masks" / "0-003.png").write_bytes(b"nothing")
    assert "masks/0-003.png: a mask that is no PNG" in fails(folder, "--task", "semantic-segmentation")
    assert "masks/0-003.png: a mask that is no PNG" in fails(folder)
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)
    assert "nothing but void" in fails(folder)
    assert "only one class" in fails(folder, "--set", "task.ignore=none")


def test_bad_rows_are_left_out_and_unknown_classes_told(data: Path, tmp_path: Path) -> None:
    folder = tiny_masks.write(tmp_path / "data", 12)
    (folder / "masks" / "0-003.png").write_bytes(b"nothing")
    with Image.open(folder / "masks" / "0-004.png") as mask:
        mask.resize((128, 96), Image.Resampling.NEAREST).save(folder / "masks" / "0-004.png")
    report = warmstart.adapt(str(folder), backbone="none", strategy="majority", out=str(tmp_path / "model"), skip_bad=True)
    assert report.task.name == "semantic_segmentation"
    warnings = json.loads((tmp_path / "model" / "report.json").read_text())["warnings"]
    assert "1 mask has another size than its image, and was fitted to it" in warnings
    other = tiny_masks.write(tmp_path / "other", 3, names=False)
    (other / "classes.txt").write_text("sky\nground\ntree\n")
    assert cli.main(["evaluate", str(tmp_path / "model"), str(other), "--out", str(tmp_path / "report"), "--quiet"]) == 0
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert any("pixels of the class 'tree', which" in warning for warning in told["warnings"])


def test_values_without_a_name_are_told_and_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_masks.write(tmp_path / "data", 12, names=False)
    colours = np.array([[128, 128, 128], [128, 0, 0], [64, 192, 171]], np.uint8)
    for path in (folder / "masks").iterdir():
        with Image.open(path) as mask:
            cells = np.minimum(np.asarray(mask), 1 if path.stem < "0-009" else 2)
        Image.fromarray(colours[cells]).save(path)
    (folder / "classes.txt").write_text("128 128 128 sky\n128 0 0 ground\n")

    def adapted_with(*extra: str) -> tuple[list[str], tuple[str, ...]]:
        given = ["adapt", str(folder), "--backbone", "none", "--strategy", "majority", "--out", str(tmp_path / "model"), "--force"]
        assert cli.main([*given, *extra]) == 0
        return json.loads((tmp_path / "model" / "report.json").read_text())["warnings"], Card.read(tmp_path / "model").labels

    warnings, labels = adapted_with()
    note = next(warning for warning in warnings if "no name" in warning)
    assert "1 value of masks has no name" in note
    assert "#40c0ab (in 3 masks, such as " in note
    assert "0-009.png" in note
    assert note in capsys.readouterr().err
    assert set(labels) == {"sky", "ground", "#40c0ab"}
    warnings, labels = adapted_with(*note[note.index("--set") :].split())
    assert not any("no name" in warning for warning in warnings)
    assert set(labels) == {"sky", "ground"}


def test_a_table_named_by_hand(data: Path, tmp_path: Path) -> None:
    folder = tiny_masks.write(tmp_path / "data", 12, names=False)
    rows = "\n".join(f"images/0-{i:03}.png,masks/0-{i:03}.png" for i in range(12))
    (folder / "rows.csv").write_text(f"image,truth\n{rows}\n")
    given = ["adapt", str(folder / "rows.csv"), "--column", "label=truth", "--column", "image=image", "--task", "semantic-segmentation"]
    names = ["--set", "task.names=sky,ground,box"]
    assert cli.main([*given, *names, "--backbone", "none", "--strategy", "majority", "--out", str(tmp_path / "model"), "--quiet"]) == 0
    assert Card.read(tmp_path / "model").labels == ("sky", "ground", "box")
