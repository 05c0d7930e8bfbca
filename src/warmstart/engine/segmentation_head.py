"""What tells the class of every pixel from the maps of a body: a light decoder for any of them, or that of SegFormer.

The states of the body at a few points are brought to one width and the size of the finest, and added (a feature pyramid, Lin et al. 2017,
with the heads of "Panoptic FPN", Kirillov et al. 2019, made light). B batch, C classes, D channels, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.errors import CutRefused
from warmstart.engine import store
from warmstart.engine.aside import opened
from warmstart.engine.detection_head import Block, HeadOptions, Lateral, as_map
from warmstart.engine.masks import UNKNOWN, VOID, resized
from warmstart.engine.overlap import Truth
from warmstart.engine.workbench import Workbench

CELLS = 4_096
"""The finest map that is read has at most so many cells (64 x 64)."""

LEVELS = 4
FINER = 2
"""Logits are compared with the truth at so many times the sides of their map."""

MOST_WEIGHT = 10.0
"""Of a rare class, against the mean."""

SEGFORMER = ("hidden_sizes", "decoder_hidden_size", "num_encoder_blocks", "classifier_dropout_prob", "reshape_last_stage")

STORED = "decode_head."


class Options(HeadOptions, Protocol):
    """What of the task's options decides a head."""

    @property
    def balance(self) -> float: ...


class MapHead(nn.Module):
    """What both heads share: logits (B, C, h, w) to a loss and to class maps. ``settings`` hold ``weights`` of the classes, and in
    ``upsample`` how many times finer than the logits a class map is."""

    settings: dict[str, Any]
    points: tuple[int, ...]
    lr = 3e-3

    def loss(self, outputs: Tensor, targets: Sequence[Truth], smoothing: float) -> Tensor:
        """Cross entropy of the pixels that count, weighted by class."""
        logits = F.interpolate(outputs.float(), scale_factor=float(FINER), mode="bilinear", align_corners=False)
        size = (logits.shape[2], logits.shape[3])
        truth = torch.from_numpy(np.stack([resized(opened(target), *size) for target in targets]).astype(np.int64)).to(logits.device)
        truth = torch.where(truth == UNKNOWN, VOID, truth)
        weights = torch.tensor(self.settings["weights"], device=logits.device)
        total = F.cross_entropy(logits, truth, weights, ignore_index=VOID, reduction="sum", label_smoothing=smoothing)
        counted = weights[truth[truth != VOID]].sum()
        return total / counted.clamp_min(1.0)

    def compact(self, outputs: Tensor) -> NDArray[np.uint8]:
        """The likeliest class of each pixel: (B, h * upsample, w * upsample)."""
        factor = float(self.settings["upsample"])
        found = [F.interpolate(row[None].float(), scale_factor=factor, mode="bilinear", align_corners=False).argmax(1) for row in outputs]
        return cast(NDArray[np.uint8], torch.cat(found).to(torch.uint8).cpu().numpy())


class PyramidHead(MapHead):
    """States at ``points``, fine to coarse, to logits at the size of the finest; of patches, whose maps are coarse, at twice that."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings, self.points = settings, tuple(settings["points"])
        width = settings["width"]
        self.laterals = nn.ModuleList(Lateral(channels, width) for channels in settings["widths"])
        self.tower = nn.Sequential(*(Block(width) for _ in range(settings["depth"])))
        self.classes = nn.Conv2d(width, settings["classes"], 1)

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """(B, C, h, w)."""
        tokens, size = self.settings["tokens"], batch["pixel_values"].shape[-2:]
        maps = [lateral(as_map(s, size) if tokens else s.float()) for lateral, s in zip(self.laterals, states, strict=True)]
        fine = maps[0].shape[-2:] if not tokens else [2 * side for side in maps[0].shape[-2:]]
        resized_maps = [
            m if m.shape[-2:] == fine else F.interpolate(m, size=list(fine), mode="bilinear", align_corners=False) for m in maps
        ]
        x = torch.stack(resized_maps).sum(0)  # (B, width, h, w)
        return cast(Tensor, self.classes(self.tower(F.relu(x))))


class SegformerHead(MapHead):
    """The decoder of SegFormer (Xie et al. 2021) as transformers has it, on the maps of its four stages."""

    lr = 1e-3

    def __init__(self, settings: dict[str, Any]) -> None:
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        super().__init__()
        self.settings, self.points = settings, tuple(settings["points"])
        self.decoder = SegformerDecodeHead(SegformerConfig(**settings["config"], num_labels=settings["classes"]))

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """(B, C, H / 4, W / 4)."""
        return cast(Tensor, self.decoder(tuple(state.float() for state in states)))


def build(bench: Workbench, rows: NDArray[np.int64], options: Options) -> MapHead:
    """An untrained head for the bench's body, or one that goes on from a SegFormer's own.

    Raises:
        CutRefused: The body has no maps of the image.
    """
    size = bench.batch([0])["pixel_values"].shape[-2:]
    weights = class_weights([bench.targets[int(i)] for i in rows], len(bench.labels), options.balance)
    general = {"classes": len(bench.labels), "weights": weights}
    config = getattr(bench.backbone.model, "config", None)
    shapes = bench.shapes
    if getattr(config, "model_type", "") == "segformer" and options.head == "auto":
        points = list(range(1, len(shapes)))
        settings: dict[str, Any] = {"kind": "segformer", "points": points, "config": {name: getattr(config, name) for name in SEGFORMER}}
        upsample = max(1, round(size[0] / shapes[1][1]))
        return _own(bench, SegformerHead({**settings, **general, "upsample": upsample}))
    points, tokens = chosen(shapes)
    widths = [shapes[p][-1 if tokens else 0] for p in points]
    settings = {"kind": "pyramid", "points": points, "widths": widths, "tokens": tokens, "width": options.width, "depth": options.depth}
    cells = as_map(torch.zeros(1, *shapes[points[0]]), size).shape[2] * 2 if tokens else shapes[points[0]][1]
    return PyramidHead({**settings, **general, "upsample": max(1, round(size[0] / cells))})


def made(settings: Mapping[str, Any]) -> MapHead:
    """The head that has these settings, untrained."""
    return SegformerHead(dict(settings)) if settings["kind"] == "segformer" else PyramidHead(dict(settings))


def chosen(shapes: Sequence[tuple[int, ...]]) -> tuple[list[int], bool]:
    """The points that are read, and whether their states are tokens: the last of each size of map; of tokens four, spread.

    Raises:
        CutRefused: No state is a map or a sequence of patches.
    """
    last: dict[tuple[int, ...], int] = {}
    for point, shape in enumerate(shapes):
        if len(shape) == 3 and shape[0] > 3 and 1 < shape[1] * shape[2] <= CELLS:
            last[shape[1:]] = point
    if last:
        finest = sorted(last, key=lambda sides: -sides[0] * sides[1])[:LEVELS]
        return [last[sides] for sides in finest], False
    final = len(shapes) - 1
    if len(shapes[-1]) == 2:
        spread = {round(final * share) for share in (0.25, 0.5, 0.75, 1)}
        return sorted(point for point in spread if shapes[point] == shapes[-1]), True
    raise CutRefused("its states are no maps of the image", "a convolutional or patch-wise body", "use another backbone")


def class_weights(targets: Sequence[Truth], classes: int, balance: float) -> list[float]:
    """Weights of the classes in the loss, by their share of the pixels to the power of ``-balance``; 1 on the average pixel."""
    counts = np.zeros(classes)
    for target in targets:
        counts += np.bincount(opened(target).ravel(), minlength=256)[:classes]
    total = max(1.0, counts.sum())
    weights = (np.maximum(counts, 1) / total) ** -balance
    weights = np.minimum(weights / (weights * counts / total).sum(), MOST_WEIGHT)
    return [round(float(w), 4) for w in weights]


def _own(bench: Workbench, head: SegformerHead) -> SegformerHead:
    """The head with the weights of the folder; of its classes those that are known by name there."""
    file = bench.backbone.folder / "model.safetensors"
    stored = store.read_tensors(file) if file.is_file() else {}
    known = {name.removeprefix(STORED): tensor for name, tensor in stored.items() if name.startswith(STORED)}
    known = {name.replace("linear_c.", "linear_projections."): tensor for name, tensor in known.items()}  # files keep the older name
    names: dict[int, str] = getattr(getattr(bench.backbone.model, "config", None), "id2label", {})
    own = dict(head.decoder.state_dict())
    place = {name: i for i, name in names.items()}
    for name, tensor in known.items():
        if name.startswith("classifier."):
            for i, label in enumerate(bench.labels):
                if label in place and place[label] < len(tensor):
                    own[name][i] = tensor[place[label]]
        elif name in own and own[name].shape == tensor.shape:
            own[name] = tensor
    head.decoder.load_state_dict(own)
    return head
