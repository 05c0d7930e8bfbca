"""What a pre-trained body is worth on few labels, against the same body at random; bert, rbm and wav2vec have theirs beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_bars
import tiny_sound
from tiny_worth import documents, gains, labelled, text_states, textures
from warmstart.core import registry
from warmstart.engine import cut, loop, network, statistics, store
from warmstart.engine.learner import Setting

GPT = {"width": 32, "depth": 2, "heads": 2, "context": 32, "batch": 16, "vocabulary": 400, "muon_lr": 0.02, "lr": 0.02}
TEXT = {"width": 32, "depth": 1, "vocabulary": 300, "max_length": 16}


def _bodies(folder: Path, name: str, data: Any, *, steps: int, **options: Any) -> list[Path]:
    """Folders of the body at random and of the trained one."""
    for n in (0, steps):
        part = registry.create("objectives", name, options={**options, "steps": n})
        learner = part.prepare(Setting(data=data, folder=folder / f"work{n}"))
        loop.run(learner, loop.How(folder / f"run{n}", seed=0, device=torch.device("cpu"), precision=torch.float32))
        learner.save(folder / f"body{n}")
    return [folder / "body0", folder / f"body{steps}"]


def _least(codes: list[NDArray[np.float32]], labels: NDArray[np.int64], per_class: int) -> float:
    """Lower end of the gain's 95 % interval over ten draws of labels."""
    return statistics.mean_interval(gains(codes, labels, per_class=per_class), bounds=(-1.0, 1.0))[0]


def _image_states(body: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of the last states over places, (N, D)."""
    pixels = torch.from_numpy(images if images.ndim == 4 else images[..., None]).permute(0, 3, 1, 2) / 255  # (N, C, H, W)
    with torch.no_grad():
        states = store.load_body(body)((pixels - 0.5) / 0.5)[0]
    return (states.flatten(2).mean(2) if states.ndim == 4 else states.mean(1)).numpy()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt", {**GPT, "steps": 60}),
        ("contrastive", {**TEXT, "batch": 64, "lr": 1e-3, "steps": 60}),
    ],
)
def test_texts_without_labels(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Four labels a topic hold a fraction of its words; that the others belong to it is in the unlabelled documents."""
    texts, labels = labelled(300, seed=1)
    corpus = documents(400)
    data = corpus if name == "gpt" else [sentence for document in corpus for sentence in document.split(". ")]
    assert _least([text_states(body, texts) for body in _bodies(tmp_path, name, data, **options)], labels, 4) > 0.05


def test_texts_with_labels(tmp_path: Path) -> None:
    (texts, labels), (known, topics) = labelled(300, seed=1), labelled(240)
    data = [{"text": text, "label": f"topic {topic}"} for text, topic in zip(known, topics, strict=True)]
    bodies = _bodies(tmp_path, "supervised", data, steps=60, batch=16, **TEXT)
    assert _least([text_states(body, texts) for body in bodies], labels, 4) > 0.05


@pytest.mark.parametrize("name", ["contrastive", "supervised"])
def test_images(name: str, tmp_path: Path) -> None:
    """Directions of waves, whatever their colours; with labels, from six other directions."""
    images, labels = textures(300, seed=1)
    seen, directions = textures(400, kinds=6)
    data = {"image": seen} if name == "contrastive" else {"image": seen, "label": [str(direction) for direction in directions]}
    own = {"crop": 0.5, "batch": 64} if name == "contrastive" else {"augment": "none", "batch": 32}
    bodies = _bodies(tmp_path, name, data, steps=40, width=8, lr=3e-3, **own)
    assert _least([_image_states(body, images) for body in bodies], labels, 3) > 0.05


def test_masked_patches(tmp_path: Path) -> None:
    images, labels = tiny_bars.patterns(400, noise=0.15, seed=1)
    options = {"architecture": "masked", "width": 32, "depth": 1, "patch": 2, "masked": 0.5, "batch": 32, "lr": 3e-3}
    bodies = _bodies(tmp_path, "autoencoder", tiny_bars.patterns(800, noise=0.15)[0], steps=250, **options)
    assert _least([_image_states(body, images) for body in bodies], labels, 2) > 0.05


def test_sound_with_labels(tmp_path: Path) -> None:
    """Two vowels, from the labels of the three others."""
    part, (waves, names) = registry.create("modalities", "audio"), tiny_sound.vowels(300)
    other = np.isin(names, ["a", "e", "i"])
    data = [{"audio": {"array": waves[i][0], "sampling_rate": waves[i][1]}, "label": names[i]} for i in np.flatnonzero(other)]
    codes = []
    for folder in _bodies(tmp_path, "supervised", data, steps=40, width=32, depth=2, batch=12, augment="light"):
        body, encoder = store.load_body(folder), part.encoder(folder, 256)
        given = [(waves[i],) for i in np.flatnonzero(~other)]
        batch = encoder.collate(encoder.encode(part.load(given, folder=tmp_path, body=folder)))
        with torch.no_grad():
            codes.append(network.pooled_states(body, cut.find_trunk(body), batch).flatten(1).numpy())
    assert _least(codes, np.unique(names[~other], return_inverse=True)[1], 3) > 0.05
