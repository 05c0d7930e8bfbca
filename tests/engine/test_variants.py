"""Augmented views: the same for the same example, seed and number; learned from under their own keys; held-out rows stay plain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_images import drawings, hf_backbone
from warmstart.core import registry
from warmstart.core.errors import BadOption
from warmstart.engine import activations, variants, workbench
from warmstart.engine.sound import Sound

IMAGE, AUDIO = registry.create("modalities", "image"), registry.create("modalities", "audio")


@pytest.fixture
def bench(tmp_path: Path) -> workbench.Workbench:
    body = hf_backbone("vit", tmp_path / "body")
    pairs = drawings(12, side=20, seed=0)
    task = registry.create("tasks", "classification")
    labels = tuple(sorted({label for _, label in pairs}))
    return workbench.Workbench(
        inputs=IMAGE.load([(pixels,) for pixels, _ in pairs], folder=Path(), body=body),
        targets=task.encode([label for _, label in pairs], labels),
        labels=labels,
        task=task,
        modality=IMAGE,
        backbone_name=str(body),
        device=torch.device("cpu"),
        precision=torch.float32,
        max_length=64,
        seed=3,
        store=activations.Store(tmp_path / "store"),
        hint_rows=np.arange(8),
        views=2,
    )


def test_rows_of_views(bench: workbench.Workbench) -> None:
    rows = bench.spread(np.array([1, 4]))
    assert rows.tolist() == [1, 4, 14, 15, 20, 21]
    assert bench.variants.origin(rows).tolist() == [1, 4, 1, 1, 4, 4]
    assert bench.targets[rows].tolist() == bench.targets[[1, 4, 1, 1, 4, 4]].tolist()
    assert len(set(bench.keys)) == len(bench.keys) == 36


def test_views_are_made_again_to_the_bit_and_stored_once(bench: workbench.Workbench) -> None:
    first, again = bench.example(14), bench.example(14)
    assert np.array_equal(first["pixels"], again["pixels"])
    assert not np.array_equal(first["pixels"], bench.example(15)["pixels"])
    assert first["pixels"].shape == bench.example(1)["pixels"].shape
    rows = bench.spread(np.arange(4))
    assert bench.lacking(rows) == 12
    states = bench.pooled(rows)
    assert bench.lacking(rows) == 0
    assert not torch.equal(states[0], states[4])
    assert bench.view_seconds() > 0


def test_another_seed_and_other_changes_are_other_views(bench: workbench.Workbench) -> None:
    own = bench.variants.content(14)
    unlike = registry.create("modalities", "image", options={"flip": 0.0})
    assert own != variants.Variants(bench.inputs, IMAGE, 2, 4).content(14)
    assert own != variants.Variants(bench.inputs, unlike, 2, 3).content(14)
    with pytest.raises(BadOption, match="flip"):
        registry.create("modalities", "image", options={"flip": 2.0})


def test_a_large_image_keeps_its_size() -> None:
    value = IMAGE.load([(np.arange(90 * 120 * 3, dtype=np.uint8).reshape(90, 120, 3),)], folder=Path(), body=None)[0]
    view = IMAGE.view(value, np.random.default_rng(0))[0]
    assert view.pixels.shape == (90, 120, 3)
    assert view.digest != value[0].digest
    grey = IMAGE.load([(np.eye(28, dtype=np.uint8) * 255,)], folder=Path(), body=None)[0]
    assert IMAGE.view(grey, np.random.default_rng(0))[0].pixels.shape == (28, 28)


def test_sound_keeps_its_length_and_changes() -> None:
    wave = np.sin(np.arange(16_000) / 7).astype(np.float32)
    views = [AUDIO.view((Sound(wave, 16_000),), np.random.default_rng(i))[0] for i in (0, 0, 1)]
    assert np.array_equal(views[0].samples, views[1].samples)
    assert not np.array_equal(views[0].samples, views[2].samples)
    assert all(v.samples.shape == wave.shape and v.samples.dtype == np.float32 and np.isfinite(v.samples).all() for v in views)
    moved = variants.SoundChanges(gain=0, noise=0, shift=0.5, masked=0)(wave, np.random.default_rng(2))
    assert (moved == 0).sum() > (wave == 0).sum()


def test_what_has_no_views() -> None:
    with pytest.raises(BadOption, match="views = 3 with text"):
        variants.check(3, registry.create("modalities", "text"), "softmax")
    with pytest.raises(BadOption, match="no labels"):
        variants.check(3, IMAGE, "")
    variants.check(0, registry.create("modalities", "text"), "softmax")
