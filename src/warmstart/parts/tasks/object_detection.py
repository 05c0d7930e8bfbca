"""boxes around the objects in an image, and what each is"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.core.protocols import Input
from warmstart.core.registry import check_ranges
from warmstart.core.report import Metric
from warmstart.engine import average_precision, statistics
from warmstart.engine.boxes import Boxes

if TYPE_CHECKING:
    from warmstart.engine.workbench import Workbench


@dataclass(frozen=True)
class Options:
    """The detector and what it tells."""

    head: Literal["auto", "convolutional"] = "auto"
    """auto: the own head of a detector (DETR, YOLOS), a light convolutional one on the maps of any other body."""
    width: int = 64
    """Channels of the convolutional head."""
    depth: int = 2
    """3x3 convolutions of it after the maps of the body were merged."""
    epochs: float | None = None
    """Passes over the training images; none: about 1,500 batches of eight, within 12 to 60 passes."""
    min_score: float = 0.3
    """predict tells of boxes with at least this score; metrics count all."""


class Part:
    """Object detection: a light head without anchors on maps of any body; average precision as COCO defines it.

    A raw label is a ``Boxes``. The compact form of an answer is (100, 6): [cx, cy, w, h, score, class], best first, as shares of the
    image's sides; the score is -1 where there are fewer.
    """

    name = "object_detection"
    structured = True
    modality = "image"
    main_metric = "image_ap"
    unknown_name = "boxes of the class"
    rows = 8
    """Images of a training batch."""

    def __init__(self, options: Options) -> None:
        wanted = {
            "width": (options.width >= 8 and options.width % 8 == 0, "a multiple of 8"),
            "depth": (options.depth >= 0, "at least 0"),
            "epochs": (options.epochs is None or options.epochs > 0, "more than 0"),
        }
        check_ranges(self.name, options, wanted)
        self.options = options

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether these are boxes."""
        return bool(values) and all(isinstance(v, Boxes) for v in values)

    def check(self, value: Any) -> str | None:
        """Why one raw label cannot be used, or None when it can."""
        return None if isinstance(value, Boxes) else "no boxes"

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The distinct names of objects, sorted.

        Raises:
            DataError: There is no box.
        """
        names = sorted({name for boxes in values for name in boxes.names})
        if not names:
            raise DataError(f"no box in {len(values)} images", "boxes around objects", "check which file has the boxes")
        return tuple(names)

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[Any]:
        """(N,) arrays (G, 5): corners as shares of the image's sides, and the class; -1 for a name that is not among ``labels``."""
        index = {label: i for i, label in enumerate(labels)}
        found = np.empty(len(values), object)
        for i, boxes in enumerate(values):
            classes = np.array([index.get(name, -1) for name in boxes.names], np.float32).reshape(-1, 1)
            found[i] = np.concatenate([boxes.relative, classes], 1)
        return found

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many boxes carry each name that is not among ``labels``."""
        counts = Counter(name for boxes in values for name in boxes.names)
        return {name: counts[name] for name in sorted(counts.keys() - set(labels))}

    def counts(self, targets: Sequence[NDArray[Any]], labels: Sequence[str]) -> dict[str, int]:
        """How many boxes there are of each class."""
        classes = np.concatenate([np.zeros(0), *(target[:, 4] for target in targets)]).astype(int)
        return dict(Counter(labels[c] for c in classes.tolist() if c >= 0).most_common())

    def epochs(self, n_train: int) -> float:
        """Passes over the training images."""
        if self.options.epochs is not None:
            return self.options.epochs
        return float(np.clip(1500 * self.rows / max(1, n_train), 12, 60))

    def size(self, body: Path | None) -> str:
        """The pixels that a body should see of an image, for ``modality.size``; empty: as it was trained."""
        from warmstart.engine import detectors

        return "" if body is None else detectors.size(body)

    def head(self, bench: Workbench, rows: NDArray[np.int64]) -> Any:
        """The detector's own head for a body of DETR or YOLOS, else a light convolutional one on its maps.

        Raises:
            CutRefused: The body has no maps of the image.
        """
        from warmstart.engine import detectors

        return detectors.build(bench, self.options)

    def build_head(self, settings: Mapping[str, Any]) -> Any:
        """The head that has these ``settings``, untrained."""
        from warmstart.engine import detectors

        return detectors.made(settings)

    def constant(self, targets: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The true boxes of the training images that hit most often, (100, 6)."""
        from warmstart.engine import detection_head

        return detection_head.constant(list(targets))

    def decode(self, compact: NDArray[Any], labels: Sequence[str], values: Sequence[Input]) -> list[Any]:
        """``[{"label", "score", "box": [xmin, ymin, xmax, ymax]}, ...]`` of each image, best first, in pixels of the image as read."""
        found = []
        for row, value in zip(compact, values, strict=True):
            width, height = value[0].size
            kept = row[row[:, 4] >= self.options.min_score]
            boxes = average_precision.corners(kept[:, :4]) * np.array([width, height, width, height])
            found.append(
                [
                    {"label": labels[int(box[5])], "score": round(float(box[4]), 4), "box": [round(float(v), 1) for v in corners]}
                    for box, corners in zip(kept, boxes, strict=True)
                ]
            )
        return found

    def told(self, answer: Sequence[dict[str, Any]]) -> str:
        """An answer in short, as true boxes are told: ``2 cat, 1 dog``."""
        counts = Counter(box["label"] for box in answer)
        return ", ".join(f"{counts[name]} {name}" for name in sorted(counts)) or "nothing"

    def scores(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """(N,) average precision within each image; see ``average_precision.scores``."""
        return average_precision.scores(compact, list(targets))

    def metrics(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]], *, seed: int) -> dict[str, Metric]:
        """Mean average precision over classes and overlaps from .5 to .95, at .5 and at .75; and the mean of ``scores``."""
        found = average_precision.metrics(compact, list(targets), seed=seed)
        return found | {"image_ap": statistics.mean_metric(self.scores(compact, targets))}

    def by_class(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]], labels: Sequence[str], *, seed: int) -> dict[str, Metric]:
        """Average precision of each class that occurs, as ``ap/CLASS``."""
        return average_precision.by_class(compact, list(targets), labels, seed=seed)

    def curves(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]], labels: Sequence[str]) -> dict[str, list[float]]:
        """Precision at recalls 0, .01, ... 1 of each class, at an overlap of one half."""
        return average_precision.curves(compact, list(targets), labels)

    def figure(self, value: Input, target: NDArray[Any], compact: NDArray[Any], labels: Sequence[str]) -> str:
        """The image with its true boxes dashed and those that were found drawn through, as SVG."""
        from warmstart.engine import detection_figures

        kept = compact[compact[:, 4] >= self.options.min_score]
        return detection_figures.picture(value[0], target, kept, labels)
