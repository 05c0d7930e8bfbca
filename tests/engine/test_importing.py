"""Importing a state dict: what it becomes, what is refused, and the published weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import warmstart
from processes import PREDICT, in_a_fresh_process
from warmstart import cli
from warmstart.core import registry
from warmstart.core.card import Card
from warmstart.core.errors import BackboneNotFound, InputError, RunError
from warmstart.engine import importing, model, store

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"


def raw(architecture: str = "mobilenet_v2", **options: Any) -> dict[str, Tensor]:
    part = registry.create("importers", importing.architectures()[architecture], options=options)
    return importing.random_state(part, architecture, classes=3)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(tensors: dict[str, Tensor], name: str = "weights.safetensors") -> Path:
        store.write_tensors(tmp_path / name, tensors)
        return tmp_path / name

    return write


def test_what_was_imported_classifies_as_it_is(tmp_path: Path, written: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
    images = [tmp_path / f"{i}.png" for i in range(6)]
    for path, one in zip(images, pixels, strict=True):
        Image.fromarray(one).save(path)
    (tmp_path / "names.txt").write_text("ant\nbee\nbee\n")
    file = written(
        {f"module.{key}": value.half() for key, value in raw().items()} | {"module.features.0.1.num_batches_tracked": torch.tensor(3)}
    )
    out = tmp_path / "body"
    args = ["--classes", str(tmp_path / "names.txt"), "--licence", "apache-2.0", "--set", "importer.size=32"]
    assert cli.main(["models", "import", str(file), "--as", "mobilenet_v2", "--out", str(out), *args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["architecture"], told["classes"], told["licence"], told["error"] < 1e-5) == ("mobilenet_v2", 3, "apache-2.0", True)
    assert 'license: "apache-2.0"' in (out / "README.md").read_text()

    found = model.load(out)
    assert found.labels == ("ant", "bee (1)", "bee (2)")
    whole = registry.create("importers", "mobilenet_v2", options={"size": 32})
    batch = found.predictor.encoder.collate(found.predictor.encoder.encode(found.inputs(images)))  # type: ignore[attr-defined]
    logits = whole.reference("mobilenet_v2", importing.read(file), batch)[1]
    predicted = found.predict(images)
    probabilities = [list(record["probabilities"].values()) for record in predicted]
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 1).numpy(), atol=1e-5)
    again = in_a_fresh_process(PREDICT, out, *images)
    assert json.loads(again) == [[float.hex(p) for p in row] for row in probabilities]

    rows = [{"image": str(path), "label": record["label"]} for path, record in zip(images, predicted, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.main(["evaluate", str(out), str(tmp_path / "rows.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["value"] == 1


def wrong_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors["features.0.0.kernel"] = tensors.pop("features.0.0.weight")
    return tensors


def wrong_shape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"features.1.conv.0.0.weight": torch.zeros(9, 1, 3, 3)}


def half_a_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors.pop("classifier.1.bias")
    return tensors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_names, "lacks features.0.0.weight and has features.0.0.kernel too"),
        (wrong_shape, "features.1.conv.0.0.weight of"),
        (half_a_head, "lacks classifier.1.bias"),
        (lambda tensors: tensors | {"features.0.0.weight": torch.zeros(8, 3, 3, 3, dtype=torch.int8)}, "features.0.0.weight in int8"),
        (lambda tensors: {}, "no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[..., dict[str, Tensor]], said: str, tmp_path: Path, written: Callable[..., Path]
) -> None:
    file = written(change(raw()))
    with pytest.raises(InputError, match=said):
        importing.run(file, architecture="mobilenet_v2", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights.pth", "save_file"),
        ("weights.onnx", "--backbone FILE.onnx"),
        ("weights.keras", "--backbone FILE.keras"),
        ("weights.h5", ".keras"),
        ("broken.safetensors", "cannot be opened"),
        ("absent.safetensors", "no file"),
        ("folder", "is a folder"),
    ],
)
def test_files_of_another_kind_are_refused(name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    if not name.startswith(("absent", "folder")):
        (tmp_path / name).write_bytes(b"\x80\x02no weights at all")
    assert cli.main(["models", "import", str(tmp_path / name), "--as", "mobilenet_v2", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_names_and_places_that_are_wrong(tmp_path: Path, written: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(raw()), tmp_path / "out"
    (tmp_path / "two.txt").write_text("a\nb\n")
    command = ["models", "import", str(file), "--out", str(out)]
    for args, said in [
        (["--as", "mobilenetv2"], "mobilenet_v2"),
        (["--as", "cifar_resnet"], "one that it knows: resnet20_cifar, resnet32_cifar"),
        (["--as", "mobilenet_v2", "--classes", str(tmp_path / "two.txt")], "names 2 classes"),
        (["--as", "mobilenet_v2", "--classes", str(tmp_path / "none.txt")], "no file"),
        (["--as", "mobilenet_v2", "--set", "padding=same"], "importer.KEY=VALUE"),
        (["--as", "mobilenet_v2", "--set", "importer.pading=same"], "'padding'"),
    ]:
        assert cli.main([*command, *args]) == 2
        assert said in capsys.readouterr().err
    out.mkdir()
    (out / "precious").touch()
    assert cli.main([*command, "--as", "mobilenet_v2", "--force"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (out / "precious").exists()


def test_a_body_that_gives_something_else_is_refused(tmp_path: Path, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(raw())
    part = registry.module("importers", "mobilenet_v2")
    reference = part.Part.reference
    monkeypatch.setattr(part.Part, "reference", lambda *args: tuple(1.01 * value for value in reference(*args)))
    with pytest.raises(RunError, match=r"differs from its state dict by 0\.0"):
        importing.run(file, architecture="mobilenet_v2", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_body_without_a_head_predicts_nothing_and_is_a_backbone(tmp_path: Path, written: Callable[..., Path]) -> None:
    tensors = {key: value for key, value in raw().items() if not key.startswith("classifier")}
    made = warmstart.import_weights(written(tensors), architecture="mobilenet_v2", out=tmp_path / "out", licence="mit")
    assert (made.classes, Card.read(tmp_path / "out").head) == (0, "body")
    with pytest.raises(InputError, match="predicts no labels"):
        model.load(tmp_path / "out")
    with pytest.raises(BackboneNotFound, match="lacks"):
        importing.run(written({"x": torch.zeros(2)}), architecture="mobilenet_v2", out=tmp_path / "other")


def test_the_architecture_that_would_fit_is_named(tmp_path: Path, written: Callable[..., Path]) -> None:
    with pytest.raises(BackboneNotFound, match="These are the names of resnet20_cifar: --as resnet20_cifar"):
        importing.run(written(raw("resnet20_cifar")), architecture="resnet18", out=tmp_path / "out")


PUBLISHED: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "mobilenet_v2": ("mobilenet_v2_imagenet.fp16", "imagenet_classes.txt", {"padding": "same", "pixels": "signed"}, 3_504_872),
    "mobilenet_v1": ("mobilenet_v1_025_128_imagenet.fp16", "imagenet_classes.txt", {"size": 128}, 467_336),
    "squeezenet1_1": ("squeezenet1_1_imagenet.fp16", "imagenet_classes.txt", {"pixels": "caffe", "size": 227}, 1_235_496),
    "resnet20_cifar": ("resnet20_cifar10", "", {}, 269_722),
    "resnet56_cifar": ("resnet56_cifar10", "", {}, 853_018),
    "yamnet": ("yamnet_audioset.fp16", "yamnet_class_map.csv", {}, 3_729_481),
}


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="published weights are not here")
@pytest.mark.parametrize("architecture", PUBLISHED)
def test_published_weights_are_converted_exactly(architecture: str, tmp_path: Path) -> None:
    file, names, options, parameters = PUBLISHED[architecture]
    classes = WEIGHTS / names if names else None
    source = WEIGHTS / f"{file}.safetensors"
    made = importing.run(source, architecture=architecture, out=tmp_path / "out", classes=classes, options=options)
    assert made.error < 1e-5
    assert made.parameters == parameters
    assert len(Card.read(tmp_path / "out").labels) == made.classes > 0
