"""ONNX files as frozen bodies: what is read from the graph, what they give, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from processes import PREDICT, in_a_fresh_process
from tiny_images import drawings, write_folder
from tiny_onnx import frames_net, image_net, patch_net, wave_net
from warmstart import cli
from warmstart.core.errors import BackboneNotFound, InputError
from warmstart.engine import backbone, bodies, extraction, foreign, network, preprocessing, store
from warmstart.engine.images import Picture
from warmstart.engine.onnx_body import OnnxBody
from warmstart.engine.sound import Sound

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def opened(file: Path, **options: Any) -> tuple[Any, Path]:
    folder = backbone.find(str(file), options)[1]
    return store.load_body(folder), folder


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("nhwc", [False, True])
def test_the_layout_and_the_batch_of_the_graph_do_not_matter(batch: int | str, nhwc: bool, tmp_path: Path) -> None:
    body, folder = opened(image_net(tmp_path / "net.onnx", batch=batch, nhwc=nhwc))
    images = pictures(6)
    session = foreign.open_onnx(image_net(tmp_path / "plain.onnx"))
    assert store.read_config(folder)["outputs"] == ["vector"]  # what goes into the classifier's linear layer
    found = body(pixel_values=torch.from_numpy(images))[0]
    plain, _ = opened(tmp_path / "plain.onnx", features="vector")
    torch.testing.assert_close(found, plain(pixel_values=torch.from_numpy(images))[0])
    logits = session.run(["classes"], {"x": images})[0]
    classes, _ = opened(tmp_path / "plain.onnx", features="classes")
    np.testing.assert_allclose(classes(pixel_values=torch.from_numpy(images))[0].numpy(), logits, rtol=1e-5)


def test_any_tensors_of_the_graph_can_be_the_features(tmp_path: Path) -> None:
    file, images = image_net(tmp_path / "net.onnx"), torch.from_numpy(pictures(3))
    maps = opened(file, features="map")[0](pixel_values=images)[0]
    both = opened(file, features="map,classes")[0](pixel_values=images)[0]
    assert (tuple(maps.shape), tuple(both.shape)) == ((3, 6, 7, 7), (3, 10))
    torch.testing.assert_close(both[:, :6], maps.mean((2, 3)))


def test_pixels_are_scaled_as_it_is_said(tmp_path: Path) -> None:
    file = image_net(tmp_path / "net.onnx")
    file.with_suffix(".json").write_text(json.dumps({"scale": 1.0, "mean": [120, 110, 100], "std": "2,4,5", "licence": "mit"}))
    folder = opened(file)[1]
    assert "license: mit" in (folder / "README.md").read_text()
    assert opened(file, scale="0.5")[1] != folder  # what is said otherwise makes another folder
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    how = preprocessing.of(folder)
    found = how.collate([how.encode(Picture(pixels, ""))])[0].numpy()
    expected = (pixels.astype(float) - [120, 110, 100]) / [2, 4, 5]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-4)
    photo, _ = opened(image_net(tmp_path / "photo.onnx", side=112)), None
    assert preprocessing.of(photo[1]).geometry.crop == (112, 112)


def test_sound_goes_through_a_front_in_patches(tmp_path: Path) -> None:
    frames_net(tmp_path / "front.onnx")
    said = {"front": "front.onnx", "rate": 8000, "step": 2, "margin": 0.05, "front_offset": 1.0, "gain": 2.0}
    body, folder = opened(patch_net(tmp_path / "patches.onnx"), **{key: str(value) for key, value in said.items()})
    how = extraction.of(folder)
    waves = [np.random.default_rng(i).standard_normal(n).astype(np.float32) for i, n in enumerate((700, 2_000))]
    batch = how.collate([how.encode(Sound(wave, 8_000)) for wave in waves], 0)
    assert batch["attention_mask"].sum(1).tolist() == [4, 11]
    state = body(**batch)[0]
    assert state.shape == (2, 11, 5)
    padded = np.zeros(2_900, np.float32)
    padded[400:2_400] = waves[1]
    frames = (4 * padded**2)[: 200 + 27 * 100]
    bands = np.stack([frames[i * 100 : i * 100 + 200].reshape(4, 50).mean(1) for i in range(28)]) + 1  # (28, 4)
    weight = np.random.default_rng(1).standard_normal((32, 5)).astype(np.float32)
    expected = np.stack([bands[2 * i : 2 * i + 8].reshape(32) @ weight for i in range(11)])
    np.testing.assert_allclose(state[1].numpy(), expected, rtol=1e-4, atol=1e-4)
    alone = body(**how.collate([how.encode(Sound(waves[0], 8_000))], 0))[0]
    torch.testing.assert_close(state[0, :4], alone[0])


def test_frames_without_a_front_are_taken_for_images_and_the_message_says_how_else(tmp_path: Path) -> None:
    _, folder = opened(image_net(tmp_path / "patches.onnx", side=32))
    with pytest.raises(BackboneNotFound, match=r"^patches\.onnx was opened as a body for images.*backbone\.modality=audio"):
        extraction.of(folder)


def test_a_wave_may_become_several_states_a_piece(tmp_path: Path) -> None:
    body, folder = opened(wave_net(tmp_path / "wave.onnx"), rate="8000")
    how = extraction.of(folder)
    batch = how.collate([how.encode(Sound(np.ones(n, np.float32), 8_000)) for n in (800, 1_700)], 0)
    state = body(**batch)[0]
    assert state.shape == (2, 3 * 8, 3)
    mask = network.state_mask(body, state, batch)
    assert mask is not None
    assert mask.sum(1).tolist() == [8, 24]


def test_a_model_on_it_is_whole_without_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "train", 60, side=16)
    file = image_net(tmp_path / "net.onnx")
    args = ["adapt", str(tmp_path / "train"), "--backbone", str(file), "--set", "backbone.mean=0.5,0.5,0.5", "--out", str(tmp_path / "m")]
    assert cli.main([*args, "--budget", "20s", "--strategy", "linear_probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["strategy"] == "linear_probe"
    file.unlink()
    image = next((tmp_path / "train").rglob("*.png"))
    again = [in_a_fresh_process(PREDICT, tmp_path / "m", image) for _ in range(2)]
    assert again[0] == again[1]
    assert {"model.onnx", "config.json", "head.safetensors"} <= {path.name for path in (tmp_path / "m").iterdir()}
    assert (
        cli.main(["adapt", str(tmp_path / "train"), "--backbone", str(tmp_path / "m"), "--out", str(tmp_path / "n"), "--strategy", "full"])
        == 2
    )
    assert "can only be used frozen" in capsys.readouterr().err
    command = [
        "pretrain",
        str(tmp_path / "train"),
        "--objective",
        "supervised",
        "--from",
        str(tmp_path / "m"),
        "--out",
        str(tmp_path / "p"),
    ]
    assert cli.main(command) == 2
    assert "can only be used frozen" in capsys.readouterr().err


def not_onnx(folder: Path) -> Path:
    (folder / "net.onnx").write_bytes(b"surely no graph")
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda folder: folder / "net.onnx", {}, "no file"),
        (not_onnx, {}, "cannot be read"),
        (lambda folder: image_net(folder / "net.onnx"), {"features": "mao"}, "Did you mean 'map'"),
        (lambda folder: image_net(folder / "net.onnx"), {"mean": "1,2"}, "a number for each channel"),
        (lambda folder: image_net(folder / "net.onnx"), {"mean": "a"}, "cannot be used"),
        (lambda folder: image_net(folder / "net.onnx"), {"sise": "1"}, "'size'"),
        (lambda folder: patch_net(folder / "net.onnx"), {"front": "none.onnx"}, "no file"),
        (lambda folder: wave_net(folder / "net.onnx"), {"modality": "image", "layout": "NCHW"}, "2 dimensions"),
    ],
)
def test_what_cannot_be_used_is_named(make: Callable[[Path], Path], options: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        backbone.find(str(make(tmp_path)), options)


def test_a_body_is_of_one_kind(tmp_path: Path) -> None:
    body, folder = opened(image_net(tmp_path / "net.onnx"))
    assert isinstance(body, OnnxBody)
    assert bodies.is_own(body)
    with pytest.raises(BackboneNotFound, match="for images"):
        extraction.of(folder)
    with pytest.raises(BackboneNotFound, match="a body for sound"):
        preprocessing.of(opened(wave_net(tmp_path / "wave.onnx"))[1])
    assert len(drawings(1)) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="published weights are not here")
def test_the_published_speech_embedding_tells_spoken_digits_apart(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    weights = SHARED / "weights"
    said = {"front": weights / "google_speech_melspectrogram.onnx", "gain": 32768, "front_scale": 0.1, "front_offset": 2, "step": 8}
    body, folder = opened(weights / "google_speech_embedding.onnx", **{key: str(value) for key, value in said.items()})
    how, files = extraction.of(folder), sorted((SHARED / "fsdd" / "recordings").glob("*_george_*.wav"))
    chosen = [file for file in files if int(file.stem.split("_")[2]) < 10]
    import soundfile

    examples = [how.encode(Sound(soundfile.read(file, dtype="float32")[0], 8_000)) for file in chosen]
    batch = how.collate(examples, 0)
    state = body(**batch)[0]
    pooled = network.masked_mean(state, batch["attention_mask"]).numpy()
    digits = np.array([int(file.stem[0]) for file in chosen])
    test = np.array([int(file.stem.split("_")[2]) < 5 for file in chosen])
    fitted = LogisticRegression(max_iter=2000).fit(pooled[~test], digits[~test])
    assert fitted.score(pooled[test], digits[test]) >= 0.95
