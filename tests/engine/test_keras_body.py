"""Keras models as bodies: what they give, cut and trained, saved without Keras's own files, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from processes import PREDICT, in_a_fresh_process
from tiny_images import write_folder
from warmstart import cli
from warmstart.core.errors import BackboneNotFound, InputError
from warmstart.engine import backbone, cut, foreign, model, network, preprocessing, store

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, when it reads a tensor of torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def classifier(side: int = 16) -> Any:
    """Two convolutions, one in a residual block, and a classifier."""
    keras = foreign.keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((side, side, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(inputs)))
    x = layers.MaxPooling2D()(x)
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
    x = layers.Conv2D(8, 3, strides=2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Dropout(0.5)(x)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    classifier().save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def opened(name: Any, **options: str) -> tuple[Any, Path]:
    folder = backbone.find(str(name), options)[1]
    return store.load_body(folder), folder


def test_a_file_gives_the_features_before_its_classes_and_can_be_cut(file: Path) -> None:
    body, folder = opened(file)
    whole, images = classifier(), torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pooled = foreign.keras().Model(whole.inputs, whole.layers[-3].output)
    with torch.no_grad():
        expected = pooled(images.permute(0, 2, 3, 1), training=False)
        torch.testing.assert_close(body(pixel_values=images)[0], expected)
    trunk = cut.find_trunk(body)
    assert trunk is not None
    shapes: list[tuple[int, ...]] = []
    with torch.no_grad():
        network.pooled_states(body, trunk, {"pixel_values": images}, visit=lambda _, state: shapes.append(tuple(state.shape[1:])))
    assert shapes[0] == (3, 16, 16)
    assert shapes[-2:] == [(8, 3, 3), (8,)]
    assert (6, 8, 8) in shapes  # where the residual block has been added
    for point in range(trunk.n_blocks):
        assert cut.prove(body, trunk, {"pixel_values": images}, point).ok
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_a_model_on_it_is_trained_and_needs_no_file_of_keras(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "train", 90, side=16)
    args = ["adapt", str(tmp_path / "train"), "--backbone", str(file), "--budget", "60s", "--strategy", "tail", "--precision", "bfloat16"]
    options = ["--set", "strategy.blocks=2", "--set", "strategy.epochs=1", "--set", "strategy.contrastive=0"]
    assert cli.main([*args, *options, "--out", str(tmp_path / "m"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["strategy"] == "tail"
    before = store.read_tensors(opened(file)[1] / "model.safetensors")
    file.unlink()
    image = next((tmp_path / "train").rglob("*.png"))
    here = [[float.hex(p) for p in row["probabilities"].values()] for row in model.load(tmp_path / "m").predict([image])]
    assert json.loads(in_a_fresh_process(PREDICT, tmp_path / "m", image)) == here
    after = store.read_tensors(tmp_path / "m" / "model.safetensors")
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {str(len(opened(tmp_path / "m")[0].blocks) - 2)}  # of the last two blocks one has weights


def test_an_architecture_by_name_with_weights_of_a_file(tmp_path: Path) -> None:
    keras = foreign.keras()
    made = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    made.save_weights(tmp_path / "mine.weights.h5")
    body, folder = opened("keras:MobileNetV2", size="32", weights=str(tmp_path / "mine.weights.h5"), licence="mit")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = made(images.permute(0, 2, 3, 1), training=False).permute(0, 3, 1, 2)
        torch.testing.assert_close(body(pixel_values=images)[0], expected)
    assert "license: mit" in (folder / "README.md").read_text()
    how = preprocessing.of(folder)
    np.testing.assert_allclose([how.mean, how.std], [[0.5] * 3, [0.5] * 3])


def test_a_sequential_model_is_a_body_too(tmp_path: Path) -> None:
    keras = foreign.keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    steps = [layers.Conv2D(6, 3), layers.ReLU(), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    whole = keras.Sequential([keras.Input((16, 16, 3)), *steps])
    whole.save(tmp_path / "net.keras")
    body, _ = opened(tmp_path / "net.keras")
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = images.permute(0, 2, 3, 1)
    for layer in steps[:3]:
        maps = layer(maps)
    torch.testing.assert_close(body(images)[0].reshape(2, -1).sort().values, (maps.mean((1, 2))).detach().sort().values)


def test_what_keras_says_of_a_download_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(**given: Any) -> Any:
        print("Downloading data from afar")
        raise OSError("URL fetch failure on afar: None -- Name or service not known")

    monkeypatch.setattr(foreign.keras().applications, "MobileNet", unreachable)
    with pytest.raises(BackboneNotFound, match="afar") as error:
        backbone.find("keras:MobileNet", {"weights": "imagenet", "size": "32"})
    assert "Connect to the network" in str(error.value)
    said = capsys.readouterr()
    assert said.out == ""
    assert "Downloading" in said.err


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("keras:MobileNetV22", {}, "Did you mean 'MobileNetV2"),
        ("keras:MobileNetV2", {"size": "7"}, "MobileNetV2 with weights none"),
        ("keras:MobileNetV2", {"weights": "none.weights.h5"}, "no file none.weights.h5"),
        ("none.keras", {}, "no file none.keras"),
        ("wrong.keras", {}, "cannot be opened"),
        ("vector.keras", {}, "one image"),
        ("lambda.keras", {}, r"disallowed by default\. Expected a whole"),
        ("net.keras", {"mean": "1,2"}, "a number for each channel"),
        ("net.keras", {"mean": "a"}, "numbers with commas"),
    ],
)
def test_what_cannot_be_used_is_named(
    name: str, options: dict[str, str], said: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keras = foreign.keras()
    Path("wrong.keras").write_bytes(b"nothing")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save("vector.keras")
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: 2 * x)]).save("lambda.keras")
    with pytest.raises(InputError, match=said):
        backbone.find(name, options)


def test_damaged_weights_are_named(file: Path) -> None:
    folder = opened(file)[1]
    store.write_tensors(folder / "model.safetensors", {"blocks.0.0": torch.zeros(2)})
    with pytest.raises(BackboneNotFound, match="do not fit"):
        store.load_body(folder)
