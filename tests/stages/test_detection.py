"""adapt, predict and evaluate find objects: a light head on frozen maps, and whole detectors of transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

import tiny_boxes
import warmstart
from processes import ANSWER, in_a_fresh_process
from tiny_images import hf_backbone
from warmstart import cli
from warmstart.core.card import Card
from warmstart.core.errors import BadOption
from warmstart.engine import detection_figures, palette, store
from warmstart.engine.images import Picture


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training images: enough for a single split."""
    folder = tmp_path_factory.mktemp("boxes")
    tiny_boxes.write_table(folder, 200, name="train.csv")
    tiny_boxes.write_table(folder, 24, seed=1, name="test.csv")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_backbone("resnet", tmp_path_factory.mktemp("bodies") / "resnet")


def detector(name: str, folder: Path) -> Path:
    """A tiny random detector, whole, as transformers saves it."""
    sizes = {"num_attention_heads": 2, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "yolos":
            config = hf.YolosConfig(**sizes, image_size=[32, 32], patch_size=8, num_detection_tokens=6, num_labels=2)
            whole = hf.YolosForObjectDetection(config)
        else:
            inner = hf.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
            )
            config = hf.DetrConfig(
                backbone_config=inner,
                use_timm_backbone=False,
                use_pretrained_backbone=False,
                d_model=16,
                num_queries=6,
                encoder_layers=1,
                decoder_layers=2,
                encoder_ffn_dim=24,
                decoder_ffn_dim=24,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                num_labels=2,
            )
            whole = hf.DetrForObjectDetection(config)
    store.quiet_transformers()
    whole.eval().save_pretrained(folder)
    hf.DetrImageProcessorPil().save_pretrained(folder)
    return folder


def adapted(data: Path, body: Path, out: Path, *extra: str) -> int:
    given = ["adapt", str(data / "train.csv"), "--test", str(data / "test.csv"), "--backbone", str(body), "--out", str(out), "--quiet"]
    return cli.main([*given, "--set", "modality.size=48x64", *extra])


def test_a_head_on_frozen_maps_finds_objects(data: Path, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    options = ("--set", "task.epochs=12", "--set", "task.width=32", "--budget", "2m", "--json")
    assert adapted(data, resnet, out, "--strategy", "linear_probe", *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == "object_detection"
    metrics = told["metrics"]
    assert {"map", "ap50", "ap75", "image_ap", "ap/blue", "ap/red"} <= set(metrics)
    assert metrics["ap50"]["low"] <= metrics["ap50"]["value"] <= metrics["ap50"]["high"]
    assert metrics["ap50"]["value"] > 0.3  # of a random body; the best constant answer has less than a tenth
    assert Card.read(out).labels == ("blue", "red")

    image = data / "images" / "1-001.png"
    found = warmstart.load(out).predict([str(image)])
    again = json.loads(in_a_fresh_process(ANSWER, out, image))
    assert again == found
    box = found[0]["prediction"][0]
    assert set(box) == {"label", "score", "box"}
    assert 0 <= box["box"][0] < box["box"][2] <= 64
    assert 0 <= box["box"][1] < box["box"][3] <= 48
    size = store.read_object(out / "preprocessor_config.json")["size"]
    assert size == {"height": 48, "width": 64}

    assert cli.main(["evaluate", str(out), str(data / "test.csv"), "--json", "--quiet"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured["map"] == metrics["map"]
    report = (out / "report.html").read_text()
    assert 'class="boxes"' in report
    assert "Precision against recall" in report
    assert len(report) < 2_000_000


def test_boxes_are_counted_that_are_used(tmp_path: Path) -> None:
    table = tiny_boxes.write_table(tmp_path, 24)
    with table.open("a") as file:
        file.write("lost.png,red,1,1,9,9\nlost.png,red,2,2,9,9\n")
    warmstart.adapt(table, backbone="none", strategy="majority", out=tmp_path / "model", skip_bad=True)
    warnings = json.loads((tmp_path / "model" / "report.json").read_text())["warnings"]
    assert any(" in 24 images" in warning for warning in warnings)
    assert any("1 row of" in warning and "no such file" in warning for warning in warnings)


def test_the_best_constant_answer_needs_no_body(data: Path, tmp_path: Path) -> None:
    found = warmstart.adapt(data / "train.csv", test=data / "test.csv", out=tmp_path / "model", strategy="majority", budget="1m")
    boxes = found.predict([np.zeros((48, 64, 3), np.uint8)])[0]["prediction"]
    assert all(0 <= box["score"] <= 1 for box in boxes)
    assert found.task.main_metric == "image_ap"


def test_without_a_body_there_is_the_constant_answer_and_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tiny_boxes.write_table(tmp_path, 24)
    given = ["adapt", str(table), "--quiet", "--json", "--out", str(tmp_path / "model")]
    assert cli.main(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["strategy"], told["backbone"]) == ("majority", "none")
    assert any("gives every input the same answer" in warning and "--backbone FOLDER" in warning for warning in told["warnings"])
    assert told["verdict"] == ["majority is the only rung that was climbed, so it is compared with nothing."]
    assert Card.read(tmp_path / "model").strategy == "majority"
    for extra in (["--strategy", "linear_probe"], ["--compatible", "transformers"]):
        assert cli.main([*given[:-1], str(tmp_path / "other"), "--backbone", "none", *extra]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["kind"] == "BadOption"


def test_a_missed_box_has_the_colour_of_its_class_dashed() -> None:
    image = Picture(np.zeros((48, 64, 3), np.uint8), "a.png", size=(64, 48))
    target = np.array([[0.1, 0.1, 0.4, 0.5, 1], [0.5, 0.5, 0.9, 0.9, -1]])
    found = np.array([[0.7, 0.7, 0.2, 0.2, 0.8, 0]])
    drawn = detection_figures.picture(image, target, found, ("blue", "red"))
    blue, red = palette.written(0), palette.written(1)
    assert re.findall(r'stroke="(#\w+)"[^>]*stroke-dasharray', drawn) == [red, "#000000"]
    assert f'stroke="{blue}" stroke-width="1.8"' in drawn
    assert re.sub(r"<[^>]*>", "", drawn[drawn.index("<text") :]) == "■ blue · ■ red · dashed: truth"


@pytest.mark.parametrize("name", ["yolos", "detr"])
def test_whole_detectors_are_trained_with_their_own_loss(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = detector(name, tmp_path / name)
    out = tmp_path / "model"
    size = ("--set", "modality.size=32") if name == "yolos" else ()
    assert adapted(data, body, out, "--strategy", "full", "--set", "task.epochs=1", "--budget", "2m", "--json", *size) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 <= told["metrics"]["map"]["value"] <= 1
    assert store.read_object(out / "head.json")["settings"]["kind"] == "queries"
    image = data / "images" / "1-001.png"
    compact = warmstart.load(out).predictor.logits(warmstart.load(out).inputs([str(image)]))
    assert compact.shape == (1, 100, 6)
    assert (compact[0, 6:, 4] == -1).all()
    assert ((compact[0, :6, 4] > 0) & (compact[0, :6, 4] <= 1)).all()
    assert json.loads(in_a_fresh_process(ANSWER, out, image)) == warmstart.load(out).predict([str(image)])


def test_a_detector_goes_on_from_its_own_boxes(tmp_path: Path, data: Path) -> None:
    from warmstart.engine import detectors

    body = detector("yolos", tmp_path / "yolos")
    own = store.read_tensors(body / "model.safetensors")
    bench = type("Bench", (), {})()
    bench.backbone = type("Backbone", (), {"folder": body, "n_blocks": 2, "model": store.load_body(body)})()
    bench.shapes, bench.labels = [(23, 16)] * 3, ("LABEL_0", "LABEL_1")
    head = detectors.build(bench, type("Options", (), {"head": "auto", "width": 16, "depth": 1})())
    assert torch.equal(head.bbox_predictor.layers[0].weight, own["bbox_predictor.layers.0.weight"])
    assert torch.equal(head.class_labels_classifier.layers[2].weight, own["class_labels_classifier.layers.2.weight"])
    bench.labels = ("blue", "red")
    head = detectors.build(bench, type("Options", (), {"head": "auto", "width": 16, "depth": 1})())
    assert not torch.equal(head.class_labels_classifier.layers[2].weight, own["class_labels_classifier.layers.2.weight"])


@pytest.mark.parametrize("size", ["x", "0", "3x4x5", "99999"])
def test_sizes_that_are_wrong(size: str) -> None:
    from warmstart.core import registry

    with pytest.raises(BadOption, match=r"modality\.size"):
        registry.create("modalities", "image", options={"size": size})


def test_wrong_boxes_end_with_one_line(data: Path, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "train.csv").write_text("image,label,xmin,ymin,xmax,ymax\n0-001.png,red,9,9,5,20\n")
    assert adapted(tmp_path, resnet, tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert "train.csv, line 2" in error
    assert "minimum is beyond its maximum" in error
    assert "\n" not in error
