"""A light convolutional head that finds boxes in the maps of any body, without anchors. B batch, C classes, D channels, G true boxes.

The states of the body at a few points are merged from coarse to fine (Lin et al. 2017) into one map of (h, w) cells. Each cell says how
likely the centre of an object of each class lies in it, and how far the sides of its box are (Zhou et al. 2019). The cells around a centre
learn the box too, weighted by a Gaussian as large as the object (Liu et al. 2020, "TTFNet"), which needs several times fewer steps than
learning it at centres alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.errors import CutRefused
from warmstart.engine.average_precision import MOST

CELLS = 2_500
"""The finest map that is read has at most so many cells (50 x 50)."""

LEVELS = 4
SPECIAL_TOKENS = 5
"""Tokens before the patches, at most: a class token and four registers."""

SPREAD = 0.54
"""The Gaussian of an object has its radius at this share of half a side (Liu et al. 2020)."""

UNIT = 4.0
"""Distances are learned as multiples of so many cells, on a logarithmic scale."""

PRIOR = 0.05
BOX_WEIGHT = 5.0
CANDIDATES = 300
OVERLAP = 0.6
"""Of two boxes of one class that overlap more than this the less likely one goes."""


def points(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The states that make a pyramid: the last of each size of map, of ``LEVELS`` sizes; of tokens, which have one size, two.

    Raises:
        CutRefused: No state is a map or a sequence of patches.
    """
    last: dict[tuple[int, ...], int] = {}
    for point, shape in enumerate(shapes):
        if len(shape) == 3 and math.prod(shape[1:]) <= CELLS:
            last[shape[1:]] = point
    if last:
        return tuple(sorted(last.values())[-LEVELS:])
    if len(shapes[-1]) == 2:
        return tuple(sorted({(len(shapes) - 1) // 2, len(shapes) - 1}))
    raise CutRefused("its states are no maps of the image", "a convolutional or patch-wise body", "use another backbone")


class HeadOptions(Protocol):
    """What of a task's options decides a head."""

    @property
    def head(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...


class DetectionHead(nn.Module):
    """States at ``points`` to (B, C + 4, h, w): logits of centres, then logarithms of distances to left, top, right and bottom.

    ``widths`` are the channels of each state; ``tokens`` says that states are sequences of patches, whose map is made twice as fine.
    """

    lr = 3e-3

    def __init__(
        self, points: Sequence[int], widths: Sequence[int], classes: int, *, tokens: bool, width: int = 64, depth: int = 2
    ) -> None:
        super().__init__()
        self.points, self.tokens = tuple(points), tokens
        self.settings: dict[str, Any] = {
            "kind": "convolutional",
            "points": list(points),
            "widths": list(widths),
            "classes": classes,
            "tokens": tokens,
            "width": width,
            "depth": depth,
        }
        self.laterals = nn.ModuleList(Lateral(channels, width) for channels in widths)
        self.mixers = nn.ModuleList(Block(width) for _ in widths[1:])
        self.tower = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.centres = nn.Conv2d(width, classes, 3, padding=1)
        self.distances = nn.Conv2d(width, 4, 3, padding=1)
        for layer in (self.centres, self.distances):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))
        nn.init.constant_(cast(Tensor, self.centres.bias), -math.log((1 - PRIOR) / PRIOR))

    @classmethod
    def made(cls, settings: Mapping[str, Any]) -> DetectionHead:
        """The head that has these ``settings``, untrained."""
        given = dict(settings)
        return cls(given["points"], given["widths"], given["classes"], tokens=given["tokens"], width=given["width"], depth=given["depth"])

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """Maps (B, D, H, W) or patches (B, T, D), fine to coarse, of a batch whose ``pixel_values`` say how patches lie."""
        size = batch["pixel_values"].shape[-2:]
        maps = [
            lateral(as_map(state, size) if self.tokens else state.float()) for lateral, state in zip(self.laterals, states, strict=True)
        ]
        x = maps[-1]
        for finer, mixer in zip(maps[-2::-1], list(self.mixers)[::-1], strict=True):
            x = finer + F.interpolate(mixer(x), size=finer.shape[-2:], mode="nearest")
        if self.tokens and 4 * math.prod(x.shape[-2:]) <= CELLS:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.tower(x)
        return torch.cat([self.centres(x), self.distances(x)], 1)  # (B, C + 4, h, w)

    def loss(self, outputs: Tensor, targets: Sequence[NDArray[np.float32]], smoothing: float) -> Tensor:
        """See ``loss``; there is nothing to smooth."""
        return loss(outputs, targets)

    def compact(self, outputs: Tensor) -> NDArray[np.float32]:
        """See ``compact``."""
        return compact(outputs)


class Lateral(nn.Module):
    """1x1 convolution and group norm, so that states of any scale count alike."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, width, 1, bias=False), nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H, W)."""
        return cast(Tensor, self.norm(self.conv(x)))


class Block(nn.Module):
    """3x3 convolution, group norm and ReLU, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W), the same."""
        return x + F.relu(self.norm(self.conv(x)))


def built(shapes: Sequence[tuple[int, ...]], classes: int, *, width: int, depth: int) -> DetectionHead:
    """A head for a body whose states have these shapes, (T, D) or (D, H, W) for each point of its trunk."""
    chosen = points(shapes)
    tokens = len(shapes[chosen[-1]]) == 2
    widths = [shapes[point][-1 if tokens else 0] for point in chosen]
    return DetectionHead(chosen, widths, classes, tokens=tokens, width=width, depth=depth)


def as_map(state: Tensor, size: Sequence[int]) -> Tensor:
    """Patches (B, T, D) of images of this size (H, W) as a map (B, D, h, w); tokens before the patches are left out.

    Raises:
        CutRefused: No number of them makes the rest a map.
    """
    n, (height, width) = state.shape[1], size
    fitting = []
    for special in range(min(n, SPECIAL_TOKENS + 1)):
        h = max(1, round(math.sqrt((n - special) * height / width)))
        w = (n - special) // h
        # Some patch of that size must go h times into the height and w times into the width, best with nothing left over.
        if h * w == n - special and max(height / (h + 1), width / (w + 1)) < min(height / h, width / w):
            fitting.append((h * width != w * height, special, h, w))
    if fitting:
        _, special, h, w = min(fitting)
        return state[:, special:].float().transpose(1, 2).reshape(len(state), -1, h, w)
    raise CutRefused(f"{n} tokens are no map of an image of {height} x {width}", "one token for each patch", "use another backbone")


# Loss ---------------------------------------------------------------------------------------------------------------------------------


def loss(outputs: Tensor, targets: Sequence[NDArray[np.float32]]) -> Tensor:
    """Focal loss of the centres (Law & Deng 2018) and 1 - GIoU of the boxes around them (Rezatofighi et al. 2019), for each true box."""
    outputs = outputs.float()
    n_classes = outputs.shape[1] - 4
    found = [heat(target, n_classes, outputs.shape[-2:], outputs.device) for target in targets]
    truth = torch.stack([centre for centre, _, _ in found])  # (B, C, h, w)
    total = max(1.0, float(sum(len(target) for target in targets)))
    logits = outputs[:, :n_classes]
    p = logits.sigmoid()
    right = -((1 - p) ** 2) * F.logsigmoid(logits) * (truth == 1)
    wrong = -((1 - truth) ** 4) * p**2 * F.logsigmoid(-logits) * (truth < 1)
    classes = (right + wrong).sum() / total
    weights = torch.stack([weight for _, weight, _ in found])  # (B, h, w)
    cells = weights > 0
    wanted = torch.stack([box for _, _, box in found])[cells]  # (n, 4)
    boxes = cells_to_corners(outputs[:, n_classes:])[cells]
    return classes + BOX_WEIGHT * (weights[cells] * (1 - generalised_iou(boxes, wanted))).sum() / total


def heat(
    target: NDArray[np.float32], n_classes: int, shape: Sequence[int], device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell should say of an image: closeness to a centre (C, h, w), weight of its box (h, w), and the box (h, w, 4).

    Weights of one box add up to 1. Where objects overlap, a cell belongs to the smallest.
    """
    h, w = shape
    boxes = torch.from_numpy(np.ascontiguousarray(target[:, :4])).to(device)  # (G, 4)
    labels = torch.from_numpy(target[:, 4].astype(np.int64)).to(device)
    boxes, labels = boxes[labels >= 0], labels[labels >= 0]
    centres = torch.zeros(n_classes, h, w, device=device)
    if not len(boxes):
        return centres, torch.zeros(h, w, device=device), torch.zeros(h, w, 4, device=device)
    scale = torch.tensor([w, h], dtype=torch.float32, device=device)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 * scale).floor().minimum(scale - 1)  # (G, 2) in cells
    radius = (boxes[:, 2:] - boxes[:, :2]) * scale / 2 * SPREAD
    sigma = (2 * radius.floor() + 1) / 6
    x, y = torch.arange(w, device=device), torch.arange(h, device=device)
    dx, dy = x[None] - middle[:, :1], y[None] - middle[:, 1:]  # (G, w), (G, h)
    near = torch.exp(-((dx / sigma[:, :1]) ** 2)[:, None] / 2 - ((dy / sigma[:, 1:]) ** 2)[:, :, None] / 2)  # (G, h, w)
    near = near * (dx.abs() <= radius[:, :1].floor())[:, None] * (dy.abs() <= radius[:, 1:].floor())[:, :, None]
    for label in sorted(set(labels.tolist())):
        centres[label] = near[labels == label].amax(0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    owner = torch.where(near > 0, area[:, None, None], torch.inf).min(0)  # (h, w)
    own = near * (torch.arange(len(boxes), device=device)[:, None, None] == owner.indices) * owner.values.isfinite()
    weights = own / own.sum((1, 2), keepdim=True).clamp_min(1e-6)
    return centres, weights.sum(0), boxes[owner.indices]


def cells_to_corners(distances: Tensor) -> Tensor:
    """Logarithms of distances (B, 4, h, w) from the middle of each cell as corners (B, h, w, 4), as shares of the image's sides."""
    h, w = distances.shape[-2:]
    x = (torch.arange(w, device=distances.device) + 0.5) / w
    y = (torch.arange(h, device=distances.device) + 0.5) / h
    middle = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1)  # (h, w, 2)
    scale = torch.tensor([w, h, w, h], device=distances.device)
    far = UNIT * distances.float().clamp(-6, 6).exp().permute(0, 2, 3, 1) / scale  # (B, h, w, 4)
    return torch.cat([middle - far[..., :2], middle + far[..., 2:]], -1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of corners (n, 4) and (n, 4), pair by pair: (n,) between -1 and 1."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return inner / union.clamp_min(1e-9) - (hull - union) / hull.clamp_min(1e-9)


# Decoding -----------------------------------------------------------------------------------------------------------------------------


def compact(outputs: Tensor) -> NDArray[np.float32]:
    """The best boxes of each image after non-maximum suppression: (B, 100, 6) [cx, cy, w, h, score, class]; score -1: there are fewer."""
    outputs = outputs.float()
    n_classes = outputs.shape[1] - 4
    scores = outputs[:, :n_classes].sigmoid()
    peaks = scores * (F.max_pool2d(scores, 3, stride=1, padding=1) == scores)
    best, where = peaks.flatten(1).topk(min(CANDIDATES, peaks[0].numel()), 1)  # (B, n)
    cells = scores.shape[-2] * scores.shape[-1]
    boxes = cells_to_corners(outputs[:, n_classes:]).clamp(0, 1).flatten(1, 2)  # (B, h * w, 4)
    boxes = boxes.gather(1, (where % cells)[..., None].expand(-1, -1, 4))
    return chosen(boxes, best, where // cells)


def chosen(boxes: Tensor, scores: Tensor, classes: Tensor) -> NDArray[np.float32]:
    """Corners (B, n, 4), scores (B, n) and classes (B, n), best first, in compact form with what overlaps a better one left out."""
    kept = suppressed(boxes, classes) & (scores > 0)
    order = torch.where(kept, scores, -1.0).sort(dim=1, descending=True, stable=True)
    picked = order.indices[:, :MOST]
    boxes = boxes.gather(1, picked[..., None].expand(-1, -1, 4))
    size = boxes[..., 2:] - boxes[..., :2]
    columns = [(boxes[..., :2] + boxes[..., 2:]) / 2, size, order.values[:, :MOST, None], classes.gather(1, picked)[..., None].float()]
    found = torch.cat(columns, -1)
    found = torch.where(found[..., 4:5] < 0, -1.0, found)
    return cast(NDArray[np.float32], F.pad(found, (0, 0, 0, MOST - found.shape[1]), value=-1.0).cpu().numpy())


def suppressed(boxes: Tensor, classes: Tensor) -> Tensor:
    """Which boxes (B, n, 4), best first, stay when each removes those of its class (B, n) that overlap it more than ``OVERLAP``.

    The greedy rule for all images at once: whether a box stays follows from those before it, so repeating the rule for all of them
    settles at least one more each time, and mostly all after a few (Zheng et al. 2021, "cluster NMS").
    """
    sides = (
        torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]) - torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    ).clamp_min(0)
    inner = sides.prod(-1)  # (B, n, n)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = area[:, :, None] + area[:, None] - inner
    beats = (inner > OVERLAP * union) & (classes[:, :, None] == classes[:, None])
    beats = beats.triu(1)  # (B, better, worse)
    kept = torch.ones(classes.shape, dtype=torch.bool, device=boxes.device)
    for _ in range(classes.shape[1]):
        now = ~(beats & kept[:, :, None]).any(1)
        if torch.equal(now, kept):
            break
        kept = now
    return kept


# The best constant answer -------------------------------------------------------------------------------------------------------------


def constant(targets: Sequence[NDArray[np.float32]], *, seed: int = 0) -> NDArray[np.float32]:
    """The best answer that is the same for every image, (100, 6): true boxes of the training images that hit most often.

    Of each class up to 300 true boxes are candidates; the score of one is the share of the images in which it overlaps a true box of
    its class by half or more. Then those that overlap a better one are left out.
    """
    from warmstart.engine.boxes import overlaps

    rng = np.random.default_rng(seed)
    everything = np.concatenate([np.zeros((0, 5), np.float32), *targets])
    rows: list[NDArray[Any]] = []
    for label in np.unique(everything[everything[:, 4] >= 0, 4]):
        own = everything[everything[:, 4] == label, :4]
        own = own[np.sort(rng.permutation(len(own))[:CANDIDATES])]
        hits = np.zeros(len(own))
        for target in targets:
            hits += overlaps(own, target[target[:, 4] == label, :4]).max(1, initial=0) >= 0.5
        rows += [np.array([*box, hit / len(targets), label]) for box, hit in zip(own, hits, strict=True)]
    best = np.array(sorted(rows, key=lambda row: -row[4]), np.float32).reshape(-1, 6)
    boxes, scores, classes = (torch.from_numpy(best[:, part]) for part in (np.s_[:4], 4, 5))
    return cast(NDArray[np.float32], chosen(boxes[None], scores[None], classes[None].long())[0])
