"""Patches of spectrograms, and the body that sees a recording as a sequence of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import bodies, cut, extraction, network, patches, store
from warmstart.engine.patches import Patches
from warmstart.engine.sound import Sound

CONFIG = {"model_type": "warmstart-yamnet", "stem": 4, "widths": [6, 8, 8], "strides": [1, 2, 2], "patch": [96, 64]}


def prepared(tmp_path: Path) -> Patches:
    store.write_json(tmp_path / patches.FILE, patches.settings(16_000, patches.YAMNET))
    found = extraction.of(tmp_path)
    assert isinstance(found, Patches)
    return found


@pytest.mark.parametrize(("samples", "n"), [(1, 1), (15_600, 1), (15_601, 2), (15_600 + 7_680, 2), (50_000, 6)])
def test_a_recording_becomes_whole_patches(samples: int, n: int, tmp_path: Path) -> None:
    how = prepared(tmp_path)
    example = how.encode(Sound(np.ones(samples, np.float32), 16_000))
    assert example["input_features"].shape == (n, 96, 64)
    assert how.size(example) == how.longest(samples / 16_000) == 24 * n


def test_a_tone_lies_in_its_band_and_silence_is_the_offset(tmp_path: Path) -> None:
    how, times = prepared(tmp_path), np.arange(15_600) / 16_000
    tone = how.encode(Sound(np.sin(2 * np.pi * 1_000 * times).astype(np.float32), 16_000))["input_features"]
    mel = 1127 * np.log1p(np.array([125.0, 1_000.0, 7_500.0]) / 700)
    assert tone.mean((0, 1)).argmax() == round(65 * (mel[1] - mel[0]) / (mel[2] - mel[0])) - 1
    silence = how.encode(Sound(np.zeros(15_600, np.float32), 16_000))["input_features"]
    np.testing.assert_allclose(silence, np.log(0.001), rtol=1e-6)
    weights = patches.mel_weights(16_000, 512, 64, 125.0, 7_500.0)
    assert weights[0].sum() == 0
    inside = weights[(np.arange(257) * 31.25 > 200) & (np.arange(257) * 31.25 < 7_000)]
    np.testing.assert_allclose(inside.sum(1), 1, atol=1e-5)  # neighbouring triangles share a bin between them


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    store.write_json(tmp_path / patches.FILE, {"sampling_rate": 16_000, "patches": {"window": 400}})
    with pytest.raises(BackboneNotFound, match="'patch'"):
        extraction.of(tmp_path)


def test_every_stage_is_a_point_and_can_be_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, how = bodies.build(CONFIG).eval(), prepared(tmp_path)
    noise = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    batch = how.collate([how.encode(Sound(noise[:n], 16_000)) for n in (40_000, 10_000, 20_000)], 0)
    trunk = cut.find_trunk(body)
    assert trunk is not None and trunk.n_blocks == 3  # noqa: PT018
    for point in range(4):
        proof = cut.prove(body, trunk, batch, point)
        assert (proof.ok, proof.error) == (True, 0.0), proof.reason
    alone = how.collate([how.encode(Sound(noise[:10_000], 16_000))], 0)
    together, single = (network.pooled_states(body, trunk, b) for b in (batch, alone))
    torch.testing.assert_close(together[1], single[0])  # whatever its company and their padding


def test_stored_states_fit_a_batch_with_more_padding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, how = bodies.build(CONFIG).eval(), prepared(tmp_path)
    noise = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    examples = [how.encode(Sound(noise[:n], 16_000)) for n in (10_000, 20_000)]
    batch, longer = how.collate(examples, 0), how.collate(examples, 24 * 5)
    trunk = cut.find_trunk(body)
    assert trunk is not None
    state = cut.prefix(body, trunk, batch, 2)
    rows = network.as_rows(state, network.state_mask(body, state, batch))
    assert [len(row) for row in rows] == [24 * 16, 2 * 24 * 16]
    length = network.state_length(body, longer, [len(row) for row in rows])
    hidden = network.from_rows(rows, tuple(state.shape[1:]), length=length)
    found = cut.Tail(body, trunk, 2).eval()(hidden, longer)[0]
    expected = body(**longer)[0]
    real = longer["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real])
    assert json.loads((tmp_path / patches.FILE).read_text())["sampling_rate"] == 16_000
