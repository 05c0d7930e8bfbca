"""the class of every pixel of an image"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.core.protocols import Input
from warmstart.core.registry import check_ranges
from warmstart.core.report import Metric
from warmstart.engine import masks, overlap, statistics
from warmstart.engine.answers import Files
from warmstart.engine.aside import opened
from warmstart.engine.masks import Mask

if TYPE_CHECKING:
    from warmstart.engine.workbench import Workbench

SHOWN = 8
"""Of values without a name, so many are told one by one."""
VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore")


@dataclass(frozen=True)
class Options:
    """Which pixels count, and the decoder."""

    ignore: str = "255"
    """numbers, colours (#000000) or names of pixels that do not count, with commas between; void, unlabelled and ignore never do"""
    names: str = ""
    """names of the classes 0, 1, ... with commas between; empty: as classes.txt beside the data says, else the numbers"""
    head: Literal["auto", "pyramid"] = "auto"
    """auto: the own decoder of a SegFormer, a light one on the maps of any other body"""
    width: int = 64
    """channels of the light decoder"""
    depth: int = 1
    """3x3 convolutions of it after the maps of the body were added"""
    balance: float = 0.25
    """weight of rare classes in the loss: 0 none, 1 each class as much as any other"""
    epochs: float | None = None
    """passes over the training images; none: about 400 batches of eight, within 8 to 40 passes"""


class Part:
    """Semantic segmentation: a light decoder on maps of any body; intersection over union.

    A raw label is a ``Mask``. The compact form of an answer is a class map (h, w).
    """

    name = "semantic_segmentation"
    structured = True
    modality = "image"
    main_metric = "image_iou"
    column_names = ("mask", "masks", "segmentation_mask", "mask_path", "mask_file")
    unknown_name = "pixels of the class"
    wanted = "for each image a mask with the same ratio of sides, in PNG, TIFF, BMP or GIF, and not void alone"
    rows = 8
    """Images of a training batch."""
    typical = 4

    def __init__(self, options: Options) -> None:
        wanted = {
            "width": (options.width >= 8 and options.width % 8 == 0, "a multiple of 8"),
            "depth": (options.depth >= 0, "at least 0"),
            "balance": (0 <= options.balance <= 1, "0 to 1"),
            "epochs": (options.epochs is None or options.epochs > 0, "more than 0"),
        }
        check_ranges(self.name, options, wanted)
        self.options = options
        self._void = {*VOID_NAMES, *(part.strip().lower() for part in options.ignore.split(",") if part.strip())}
        self._names = {str(i): name.strip() for i, name in enumerate(options.names.split(","))} if options.names.strip() else {}

    def load(self, values: Sequence[Any], *, folder: Path) -> list[Any]:
        """Masks of files, bytes, arrays or images of Pillow; masks stay as they are."""
        from warmstart.engine import mask_files

        return mask_files.load(values, folder=folder)

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether these are masks."""
        return any(isinstance(v, Mask) for v in values) and all(v is None or isinstance(v, Mask) for v in values)

    def check(self, value: Any) -> str | None:
        """Why one raw label cannot be used, or None when it can."""
        if not isinstance(value, Mask):
            return "missing mask"
        if value.problem:
            return value.problem
        return None if any(self._class(value, v) is not None for v in value.values) else "a mask of nothing but void"

    def check_pair(self, value: Input, target: Mask) -> str | None:
        """Why a mask cannot be that of its image."""
        if masks.fits(target, value[0].size):
            return None
        given, wanted = (f"{width} x {height}" for width, height in (target.size, value[0].size))
        return f"a mask of another form than its image: {given} for {wanted}"

    def pair_notes(self, values: Sequence[Input], targets: Sequence[Mask]) -> list[str]:
        """How many masks are larger or smaller than their images, and which of their values have no name though others have."""
        count = sum(target.size != tuple(value[0].size) for value, target in zip(values, targets, strict=True))
        has, were = ("mask has", "was") if count == 1 else ("masks have", "were")
        note = [f"{count} {has} another size than {'its' if count == 1 else 'their'} image, and {were} fitted to it"] if count else []
        return note + self._nameless(targets)

    def _nameless(self, targets: Sequence[Mask]) -> list[str]:
        """A note of the values that became classes though a file of names, or ``names``, leaves them out."""
        found: dict[str, list[str]] = {}
        for mask in targets:
            for v in mask.values:
                if (mask.names or self._names) and not self._names.get(v) and v not in mask.names and self._class(mask, v) is not None:
                    found.setdefault(v, []).append(mask.name)
        if not found:
            return []
        told = [f"{v} (in {len(names)} mask{'s' * (len(names) > 1)}, such as {names[0]})" for v, names in found.items()]
        shown = ", ".join(told[:SHOWN]) + (f", and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
        one = len(found) == 1
        where = "task.names" if self._names else "the file of names (classes.txt or the like)"
        ignored = ",".join([v.strip() for v in self.options.ignore.split(",") if v.strip().lower() not in ("", "none")] + list(found))
        given = f"{len(found)} {'value' if one else 'values'} of masks {'has' if one else 'have'} no name in {where}"
        became = f"and {'is a class of its' if one else 'are classes of their'} own: {shown}"
        return [
            f"{given}, {became}; name {'it' if one else 'them'} there, or leave {'it' if one else 'them'} out: --set task.ignore={ignored}"
        ]

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The names of the classes that occur, in the order of their numbers, colours after them.

        Raises:
            DataError: There are fewer than two, or too many.
        """
        found: dict[str, tuple[bool, int, str]] = {}
        for mask in values:
            for v in mask.values:
                name = self._class(mask, v)
                if name is not None:
                    place = (not v.isdecimal(), int(v) if v.isdecimal() else 0, v)
                    found[name] = min(place, found.get(name, place))
        if len(found) < 2:
            ignored = sorted({v for mask in values for v in mask.values if self._class(mask, v) is None})[:3]
            hint = f", and {', '.join(ignored)} is left out as void" if ignored else ""
            do = "give masks of more classes" + ("; if void is a class: --set task.ignore=none" if ignored else "")
            raise DataError(f"only one class {next(iter(found), '')!r} in {len(values)} masks{hint}", "at least two classes", do)
        if len(found) > masks.MOST_CLASSES:
            raise DataError(f"{len(found)} classes in {len(values)} masks", f"at most {masks.MOST_CLASSES}", "check that these are masks")
        return tuple(sorted(found, key=lambda name: found[name]))

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[Any]:
        """(N,) maps (H, W) of classes, with ``masks.VOID`` and ``masks.UNKNOWN``; of masks that were put aside, what gives them."""
        index = {label: i for i, label in enumerate(labels)}
        found = np.empty(len(values), object)
        for i, mask in enumerate(values):
            names = [self._class(mask, v) for v in mask.values]
            lookup = np.array([masks.VOID if n is None else index.get(n, masks.UNKNOWN) for n in names], np.uint8)
            found[i] = lookup[mask.cells] if isinstance(mask.kept, np.ndarray) else partial(_looked_up, mask, lookup)
        return found

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many pixels have each class that is not among ``labels``."""
        counts: Counter[str] = Counter()
        for mask in values:
            pixels = np.bincount(mask.cells.ravel(), minlength=len(mask.values))
            for value, count in zip(mask.values, pixels.tolist(), strict=True):
                name = self._class(mask, value)
                if name is not None and name not in labels:
                    counts[name] += count
        return {name: counts[name] for name in sorted(counts)}

    def counts(self, targets: Sequence[NDArray[Any]], labels: Sequence[str]) -> dict[str, int]:
        """How many masks have each class in them."""
        seen: Counter[int] = Counter(c for target in targets for c in np.unique(opened(target)).tolist() if c < masks.UNKNOWN)
        return {labels[c]: count for c, count in seen.most_common()}

    def _class(self, mask: Mask, value: str) -> str | None:
        """The name of a value; None where it does not count."""
        name = self._names.get(value) or mask.names.get(value, value)
        return None if value.lower() in self._void or name.lower() in self._void else name

    def head_epochs(self, n_train: int) -> float:
        """Passes over the training images for a decoder alone."""
        return self.options.epochs or float(np.clip(400 * self.rows / max(1, n_train), 8, 40))

    def epochs(self, n_train: int) -> float:
        """Passes over the training images for the body too."""
        return self.options.epochs or float(np.clip(500 * self.rows / max(1, n_train), 4, 20))

    def size(self, body: Path) -> str:
        """The pixels that a body should see, for ``modality.size``: the whole image at the size that it was trained with."""
        from warmstart.engine import preprocessing

        found = preprocessing.of(body).geometry
        short = found.short or 224
        sides = found.crop or found.resize or (short, short)
        return f"{sides[0]}x{sides[1]}"

    def head(self, bench: Workbench, rows: NDArray[np.int64]) -> Any:
        """The decoder of a SegFormer for such a body, else a light one on its maps.

        Raises:
            CutRefused: The body has no maps of the image.
        """
        from warmstart.engine import segmentation_head

        return segmentation_head.build(bench, rows, self.options)

    def build_head(self, settings: Mapping[str, Any]) -> Any:
        """The head that has these ``settings``, untrained."""
        from warmstart.engine import segmentation_head

        return segmentation_head.made(settings)

    def constant(self, targets: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
        """The most frequent class of each pixel."""
        return overlap.constant(list(targets))

    def decode(self, compact: NDArray[Any], labels: Sequence[str], values: Sequence[Input]) -> list[Any]:
        """``{"classes": {name: share of the pixels}}`` of each image, the largest first."""
        found = []
        for row in compact:
            shares = np.bincount(row.astype(np.uint8).ravel(), minlength=len(labels)) / row.size
            order = [int(c) for c in np.argsort(-shares, kind="stable") if shares[c] > 0]
            found.append({"classes": {labels[c]: round(float(shares[c]), 4) for c in order}})
        return found

    def write(self, compact: NDArray[Any], labels: Sequence[str], values: Sequence[Input], files: Files) -> list[dict[str, Any]]:
        """Class maps as PNG files, as large as their images: ``{"mask": path}`` of each."""
        from warmstart.engine import mask_figures

        return [{"mask": path} for path in mask_figures.write(compact, labels, values, files)]

    def told(self, answer: Mapping[str, Any]) -> str:
        """An answer in short, as masks are told: ``road 41 %, sky 20 %``."""
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(answer["classes"].items())[:6])

    def scores(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """(N,) intersection over union within each image, averaged over its classes."""
        return overlap.scores(compact, list(targets))

    def metrics(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]], *, seed: int) -> dict[str, Metric]:
        """The mean of ``scores``; mean intersection over union over all pixels; share of pixels that are right."""
        found = {"image_iou": statistics.mean_metric(self.scores(compact, targets))}
        return found | overlap.metrics(compact, list(targets), seed=seed)

    def by_class(self, compact: NDArray[Any], targets: Sequence[NDArray[Any]], labels: Sequence[str], *, seed: int) -> dict[str, Metric]:
        """Intersection over union of each class that occurs, as ``iou/CLASS``."""
        return overlap.by_class(compact, list(targets), labels, seed=seed)

    def figure(self, value: Input, target: NDArray[Any], compact: NDArray[Any], labels: Sequence[str]) -> str:
        """The truth over the image beside what was found."""
        from warmstart.engine import mask_figures

        return mask_figures.picture(value[0], target, compact, labels)


def _looked_up(mask: Mask, lookup: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return lookup[mask.cells]
