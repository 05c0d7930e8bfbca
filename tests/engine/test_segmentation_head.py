"""The decoders of class maps: which states they read, how rare classes count, and SegFormer's own, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import tiny_masks
from warmstart.core import registry
from warmstart.core.errors import CutRefused
from warmstart.engine import activations, masks, segmentation_head, store
from warmstart.engine.network import Network
from warmstart.engine.segmentation_head import PyramidHead
from warmstart.engine.workbench import Workbench

NAMES = ("box", "ground", "sky")


def test_the_last_of_each_size_of_map_is_read() -> None:
    maps = [(3, 64, 64), (8, 32, 32), (8, 32, 32), (16, 16, 16), (32, 4, 4), (32, 1, 1)]
    assert segmentation_head.chosen(maps) == ([2, 3, 4], False)
    tokens = [(5, 16)] * 13
    assert segmentation_head.chosen(tokens) == ([3, 6, 9, 12], True)
    with pytest.raises(CutRefused, match="no maps"):
        segmentation_head.chosen([(16,)])


def test_rare_classes_count_for_more() -> None:
    target = np.zeros((10, 10), np.uint8)
    target[0, :10], target[1] = 1, masks.VOID
    plain = segmentation_head.class_weights([target], 3, 0.0)
    assert plain == [1, 1, 1]
    common, rare, absent = segmentation_head.class_weights([target], 3, 0.5)
    assert common < 1 < rare <= absent <= segmentation_head.MOST_WEIGHT
    assert 80 / 90 * common + 10 / 90 * rare == pytest.approx(1, abs=0.02)


def test_void_and_unknown_pixels_teach_nothing() -> None:
    settings = {"points": [0], "widths": [4], "tokens": False, "width": 8, "depth": 1, "classes": 2, "weights": [1.0, 1.0], "upsample": 2}
    head = PyramidHead({"kind": "pyramid", **settings})
    outputs = head([torch.randn(1, 4, 5, 5)], {"pixel_values": torch.zeros(1, 3, 10, 10)})
    assert outputs.shape == (1, 2, 5, 5)
    assert head.compact(outputs).shape == (1, 10, 10)
    nothing = [np.array([[masks.VOID, masks.UNKNOWN]], np.uint8)]
    assert head.loss(outputs, nothing, 0.0).item() == 0
    right = [head.compact(outputs)[0]]
    wrong = [(1 - right[0]).astype(np.uint8)]
    assert head.loss(outputs, right, 0.0) < head.loss(outputs, wrong, 0.0)


def test_segformer_keeps_its_decoder(tmp_path: Path) -> None:
    """With the labels of the folder in another order the head gives what the whole architecture gives, its classes reordered."""
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        sr_ratios=[2, 2, 1, 1],
        decoder_hidden_size=16,
        id2label={0: "sky", 1: "box", 2: "ground"},
        label2id={"sky": 0, "box": 1, "ground": 2},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = hf.SegformerForSemanticSegmentation(config).eval()
    store.quiet_transformers()
    whole.save_pretrained(tmp_path / "body")
    hf.ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "body")
    bench = workbench(tmp_path)
    head = segmentation_head.build(bench, np.arange(4), bench.task.options)  # type: ignore[attr-defined]
    batch = bench.batch([0, 1])
    with torch.no_grad():
        found = Network(bench.backbone.model, head).eval()(batch)
        expected = whole(**batch).logits
    torch.testing.assert_close(found, expected[:, [1, 2, 0]])
    assert head.settings["upsample"] == 4
    assert segmentation_head.made(head.settings).points == head.points == (1, 2, 3, 4)


def workbench(folder: Path) -> Workbench:
    task = registry.create("tasks", "semantic_segmentation")
    modality = registry.create("modalities", "image")
    drawn = tiny_masks.pictures(4)
    raw = [(Image.fromarray(pixels),) for pixels, _ in drawn]
    names = {"0": "sky", "1": "ground", "2": "box"}
    targets = [masks.Mask(m.cells, m.values, size=m.size, names=names) for m in (masks.read(cells) for _, cells in drawn)]
    return Workbench(
        inputs=modality.load(raw, folder=Path(), body=folder / "body"),
        targets=task.encode(targets, NAMES),
        labels=NAMES,
        task=task,
        modality=modality,
        backbone_name=str(folder / "body"),
        device=torch.device("cpu"),
        precision=torch.float32,
        max_length=64,
        seed=0,
        store=activations.Store(folder / "store"),
    )
