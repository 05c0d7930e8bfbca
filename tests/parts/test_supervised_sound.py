"""The objective ``supervised`` on sound: frames, the network, views, and the body that ``adapt`` starts from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_sound
import warmstart
from warmstart import samples, testing
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, DataError
from warmstart.engine import bodies, cut, extraction, frames, network, sound, sound_stream, store
from warmstart.engine.frames import FLOOR, Frames
from warmstart.engine.learner import Setting
from warmstart.engine.seeds import generator
from warmstart.engine.sound_views import NUMBERS, SoundAugmentation
from warmstart.stages import predict

TINY = {"width": "32", "depth": "2", "batch": "12", "augment": "strong"}
SHAPE = {"model_type": "warmstart-soundnet", "bands": 64, "stem": [4, 8, 12], "width": 32, "depth": 2}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sound.folder(tmp_path_factory.mktemp("sounds"), 60)


def _net(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    body = bodies.build(SHAPE)
    for block in body.blocks:  # they begin as the identity, which would prove nothing
        torch.nn.init.normal_(block.back.weight, std=0.1)
    return body.eval()


def _batch(*lengths: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    return frames.collated([random.standard_normal((n, 64)).astype(np.float32) for n in lengths])


# Front end and network ----------------------------------------------------------------------------------------------------------------


def test_frames_span_80_db_whatever_the_loudness() -> None:
    how = Frames(Path(), frames.settings())
    samples = tiny_sound.wave("up", np.random.default_rng(0), rate=16_000)
    loud, soft = (how.encode(sound.Sound(samples * gain, 16_000))[frames.NAME] for gain in (1.0, 0.01))
    assert loud.shape[1] == 64
    assert loud.max() == pytest.approx(2)
    assert loud.min() >= -2 - 1e-5
    assert np.allclose(loud, soft, atol=1e-3)
    assert how.size({frames.NAME: loud}) == -(-len(loud) // 4)
    assert np.allclose(how.encode(sound.Sound(np.zeros(10, np.float32), 16_000))[frames.NAME], 2)  # silence, and very short


def test_a_wrong_front_end_is_named(tmp_path: Path) -> None:
    for wrong in ({"bands": 64}, {"bands": 64, "high": 9_000}, {"bands": "x", "high": 4_000}):
        store.write_json(tmp_path / frames.FILE, {"sampling_rate": 16_000, "frames": wrong})
        with pytest.raises(BackboneNotFound, match='"frames" in'):
            extraction.of(tmp_path)


def test_a_recording_does_not_depend_on_its_company() -> None:
    body, batch = _net(), _batch(41, 18, 7, 1)
    with torch.no_grad():
        together = network.pooled_states(body, cut.find_trunk(body), batch)
        for i, n in enumerate((41, 18, 7, 1)):
            alone = network.pooled_states(body, cut.find_trunk(body), {frames.NAME: batch[frames.NAME][i : i + 1, :n]})
            assert torch.allclose(alone[0], together[i], atol=1e-5)
            assert body(batch[frames.NAME][i : i + 1, :n])[0].shape == (1, -(-n // 4), 32)


@pytest.mark.parametrize("point", [0, 1, 2])
def test_the_cut_holds(point: int) -> None:
    body = _net()
    proof = cut.prove(body, cut.find_trunk(body), _batch(41, 18, 7), point)
    assert proof.ok, proof.reason


# Views --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "light", "strong"])
def test_views_stay_in_range_and_are_zero_behind_the_end(name: str) -> None:
    x = (-FLOOR * torch.rand(5, 40, 64, generator=generator(0, 0, 0))).float()
    lengths = torch.tensor([40, 33, 20, 12, 9])
    drawn = torch.rand(5, NUMBERS, generator=generator(0, 0, 1))
    seen, longer = sound_stream.views(name)(x, lengths, drawn, generator(0, 0, 2))
    assert seen.shape == (5, int(longer.max()), 64)
    assert seen.abs().max() <= 2 + 1e-4
    assert all((row[n:] == 0).all() for row, n in zip(seen, longer.tolist(), strict=True))
    if name == "none":
        assert torch.equal(longer, lengths)
        peak = x[0] - x[0].max()
        assert torch.allclose(seen[0], frames.scaled(peak), atol=1e-3)
    else:
        assert not torch.equal(seen[:, :9], sound_stream.views(name)(x, lengths, drawn.flip(0), generator(0, 0, 2))[0][:, :9])


def test_speed_changes_the_length_and_narrow_takes_the_upper_bands() -> None:
    x, lengths, drawn = torch.zeros(2, 50, 64), torch.tensor([50, 50]), torch.rand(2, NUMBERS, generator=generator(0, 0, 0))
    drawn[:, 0] = torch.tensor([0.0, 1.0])
    nothing: dict[str, Any] = {"colour": 0, "noise": 0, "hidden": 0}
    seen, longer = SoundAugmentation(speed=1.25, **nothing, narrow=1.0)(x, lengths, drawn, generator(0, 0, 0))
    assert longer.tolist() == [40, 62]
    top = ((0.6 + 0.2 * drawn[:, 21]) * 64).ceil().int().tolist()
    for row, n, edge in zip(seen, longer.tolist(), top, strict=True):
        assert (row[:n, edge:] == -2).all()
        assert torch.allclose(row[:n, :edge], torch.tensor(2.0))


# The objective ------------------------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract(sounds: Path, tmp_path: Path) -> None:
    testing.check_objective("supervised", Setting(data=sounds, folder=tmp_path), options={**TINY, "steps": "3"})


def test_it_is_learned_from_start_to_prediction(sounds: Path, tmp_path: Path) -> None:
    body, options = tmp_path / "body", {**TINY, "steps": "60", "augment": "light"}
    report = warmstart.pretrain(sounds, objective="supervised", out=body, options={"objective": options})
    assert report is not None
    assert report.modality == "audio"
    assert report.metrics["validation_accuracy"].value > 0.6
    assert len(report.pictures) == 1
    assert json.loads((body / frames.FILE).read_text())["frames"] == {"bands": 64, "high": 8_000.0}
    again = registry.create("objectives", "supervised", options={"steps": "1"})
    learner = again.prepare(Setting(data=sounds, folder=tmp_path, start=body))
    opened = store.load_body(body)
    assert all(torch.equal(a, b) for a, b in zip(learner.module.body.parameters(), opened.parameters(), strict=True))
    model = warmstart.adapt(sounds, backbone=str(body), strategy="linear_probe", budget="30s", out=tmp_path / "model")
    files = sorted(map(str, sounds.rglob("*.wav")))[:6]
    first = [row["probabilities"] for row in model.predict(files)]
    assert first == [row["probabilities"] for row in predict.run(tmp_path / "model", files)]


def test_long_recordings_are_seen_in_stretches(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [{"audio": {"array": tiny_sound.wave(x, random, seconds=1.5), "sampling_rate": 8_000}, "label": x} for x in ["up", "down"] * 6]
    setting = Setting(data=rows, folder=tmp_path)
    learner = registry.create("objectives", "supervised", options={**TINY, "steps": "2", "seconds": "0.5"}).prepare(setting)
    stream = learner.stream
    assert stream.known(torch.arange(3))[frames.NAME].shape[1] == 50
    assert stream.views(0, 0)[frames.NAME].shape[1] <= 50 * 1.3
    assert not torch.equal(stream.views(0, 0)[frames.NAME], stream.views(0, 1)[frames.NAME])


def test_wrong_questions_are_answered(sounds: Path, tmp_path: Path) -> None:
    def prepared(**how: Any) -> Any:
        options = {**TINY, "steps": "1", **how.pop("options", {})}
        return registry.create("objectives", "supervised", options=options).prepare(Setting(folder=tmp_path, **how))

    for options, expected in (
        ({"mixup": "0.5"}, "only images"),
        ({"family": "vit"}, "soundnet"),
        ({"seconds": "0"}, "more than 0"),
    ):
        with pytest.raises(BadOption, match=expected):
            prepared(data=sounds, options=options)
    with pytest.raises(BadOption, match="no log-mel frames"):
        prepared(data=sounds, start=samples.tiny_sound_backbone(tmp_path / "other"))
    with pytest.raises(BadOption, match="wav2vec"):
        registry.create("objectives", "contrastive").prepare(Setting(data=sounds, folder=tmp_path))
    unlabelled = tmp_path / "files"
    unlabelled.mkdir()
    for i, file in enumerate(sorted(sounds.rglob("*.wav"))[:3]):
        (unlabelled / f"{i}.wav").write_bytes(file.read_bytes())
    (sounds / "up" / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"broken\.wav"):
        prepared(data=sounds)
    learner = prepared(data=sounds, skip_bad=True)
    (sounds / "up" / "broken.wav").unlink()
    assert sum(learner.corpus.left_out.values()) == 1
    assert dataclasses.asdict(learner.corpus)["items"] == {"recordings": 54, "held-out recordings": 6}
