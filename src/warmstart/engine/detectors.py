"""Which head a body gets for object detection: the own one of a detector of transformers (DETR, YOLOS), or a convolutional one.

In DETR and YOLOS each of Q queries answers with a class, or with none, and a box (Carion et al. 2020, Fang et al. 2021). The queries are
part of the body; what turns their last states into answers is the head here, with the names and, where they fit, the weights of
transformers' own. Answers and true boxes are paired one to one by transformers' matcher, and its losses are those that the
architecture was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.engine import detection_head, store
from warmstart.engine.average_precision import MOST
from warmstart.engine.detection_head import DetectionHead, HeadOptions
from warmstart.engine.workbench import Workbench

QUERIES = {"detr": "num_queries", "yolos": "num_detection_tokens"}
"""Where the configuration of a detector says how many queries it has."""

COSTS = {"class_cost": 1.0, "bbox_cost": 5.0, "giou_cost": 2.0}
WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
NOTHING_WEIGHT = 0.1
SIDE, DETECTOR_SIDE = 320, 512
"""Pixels on each side of an image, for a body that takes any size, and for one that is a detector."""


def size(body: Path) -> str:
    """The pixels that a body should see: those it was trained with where its positions are those of fixed patches, else ``SIDE``."""
    config = store.read_config(body)
    if config.get("model_type") in QUERIES:
        return str(DETECTOR_SIDE)
    own = config.get("image_size")
    if "patch_size" in config and own:
        sides = [own, own] if isinstance(own, int) else list(own)
        return f"{sides[0]}x{sides[-1]}"
    image = config.get("image")
    sides = list(image.get("size", ())) if isinstance(image, Mapping) else []
    return str(SIDE) if not sides or config.get("model_type") != "warmstart-mlp" else f"{sides[0]}x{sides[-1]}"


def build(bench: Workbench, options: HeadOptions) -> Any:
    """An untrained head for the bench's body, or one that goes on from a detector's own.

    Raises:
        CutRefused: The body has no maps of the image.
    """
    config = bench.backbone.model.config
    kind = str(getattr(config, "model_type", ""))
    if kind in QUERIES and options.head == "auto":
        return _own(bench, int(getattr(config, QUERIES[kind])), deep=kind == "yolos")
    return detection_head.built(bench.shapes, len(bench.labels), width=options.width, depth=options.depth)


def made(settings: Mapping[str, Any]) -> Any:
    """The head that has these settings, untrained."""
    if settings["kind"] == "queries":
        return QueryHead(dict(settings))
    return DetectionHead.made(settings)


class QueryHead(nn.Module):
    """The last states of Q queries to (B, Q, C + 5): logits of the classes and of none, then cx, cy, w and h between 0 and 1."""

    lr = 1e-3

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.points: tuple[int, ...] = tuple(settings["points"])
        width, classes = settings["width"], settings["classes"]
        deep = settings["deep"]
        self.class_labels_classifier = Perceptron(width, classes + 1) if deep else nn.Linear(width, classes + 1)
        self.bbox_predictor = Perceptron(width, 4)

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The state (B, T, D) in which the body ends, whose last Q positions are the queries."""
        x = states[0][:, -self.settings["queries"] :].float()
        return torch.cat([self.class_labels_classifier(x), self.bbox_predictor(x).sigmoid()], -1)

    def loss(self, outputs: Tensor, targets: Sequence[NDArray[np.float32]], smoothing: float) -> Tensor:
        """Cross entropy, L1 and 1 - GIoU of queries that are paired with true boxes one to one, as transformers has them."""
        from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

        truths = []
        for target in targets:
            boxes = torch.from_numpy(target[target[:, 4] >= 0]).to(outputs.device)
            sides = boxes[:, 2:4] - boxes[:, :2]
            truths.append({"class_labels": boxes[:, 4].long(), "boxes": torch.cat([(boxes[:, :2] + boxes[:, 2:4]) / 2, sides], 1)})
        criterion = ImageLoss(
            matcher=HungarianMatcher(**COSTS),
            num_classes=self.settings["classes"],
            eos_coef=NOTHING_WEIGHT,
            losses=["labels", "boxes"],
        ).to(outputs.device)
        found = criterion({"logits": outputs[..., :-4].float(), "pred_boxes": outputs[..., -4:].float()}, truths)
        total: Tensor = sum((weight * found[name] for name, weight in WEIGHTS.items()), outputs.new_zeros(()))
        return total

    def compact(self, outputs: Tensor) -> NDArray[np.float32]:
        """The best class of each query (none left out) and its box, best first; nothing is suppressed."""
        scores, classes = outputs[..., :-4].float().softmax(-1)[..., :-1].max(-1)  # (B, Q)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :MOST]
        boxes = outputs[..., -4:].float().gather(1, order[..., None].expand(-1, -1, 4))
        columns = torch.cat([boxes, scores.gather(1, order)[..., None], classes.gather(1, order)[..., None].float()], -1)
        short = MOST - columns.shape[1]
        found: NDArray[np.float32] = nn.functional.pad(columns, (0, 0, 0, short), value=-1.0).cpu().numpy()
        return found


class Perceptron(nn.Module):
    """Three linear layers with ReLU between them; named as in transformers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)."""
        first, second, last = self.layers
        found: Tensor = last(second(first(x).relu()).relu())
        return found


def _own(bench: Workbench, queries: int, *, deep: bool) -> QueryHead:
    """A head of the detector's form; its box layers go on from the folder's weights, its classes too where they are the same."""
    settings = {"kind": "queries", "points": [bench.backbone.n_blocks], "queries": queries, "deep": deep}
    head = QueryHead({**settings, "width": int(bench.shapes[-1][-1]), "classes": len(bench.labels)})
    file = bench.backbone.folder / "model.safetensors"
    known = store.read_tensors(file) if file.is_file() else {}
    names: dict[int, str] = getattr(bench.backbone.model.config, "id2label", {})
    same = [names[i] for i in sorted(names)] == list(bench.labels)
    own = head.state_dict()
    fitting = [name for name in own if name in known and known[name].shape == own[name].shape and (same or "class_" not in name)]
    head.load_state_dict(own | {name: known[name] for name in fitting})
    return head
