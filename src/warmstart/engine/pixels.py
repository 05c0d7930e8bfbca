"""Images of DATA as one uint8 tensor, decoded once and resized to one size: what objectives on images learn from. M: held-out images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core import registry
from warmstart.core.errors import ColumnNotFound, DataError, FileUnreadable
from warmstart.engine import sources
from warmstart.engine.draft import Table
from warmstart.engine.images import Picture, fitted, read_all
from warmstart.engine.learner import Corpus, Setting
from warmstart.engine.preprocessing import Geometry

IN_MEMORY_BYTES = 1 << 30
"""A larger tensor becomes a memory-mapped file."""
AT_ONCE = 256
"""Images that are decoded before they are made small, so that large photographs do not fill the memory."""
SAMPLE = 64
"""Images from which the size and the number of channels are told."""
LARGEST = 64
"""Side in pixels that images are brought down to where nobody says another size."""
FRAC_HELD, HELD_MOST = 0.1, 5_000


@dataclass(frozen=True)
class Pixels:
    """Images and what is known of them.

    ``images`` are (N, C, H, W), uint8 from 0 to 255, or float32 where arrays of floats were given; ``train`` are the rows of it to learn
    from, ``held`` (M, C, H, W) other images in random order. ``labels`` (N,) and ``held_labels`` (M,) are indices into ``names``, or None.
    """

    images: Tensor
    train: Tensor
    held: Tensor
    corpus: Corpus
    names: tuple[str, ...] = ()
    labels: Tensor | None = None
    held_labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    def batch(self, rows: Tensor, device: torch.device) -> Tensor:
        """Images of these rows as ``unit`` gives them, on the device."""
        return unit(self.images[rows].to(device, non_blocking=True))


def unit(images: Tensor) -> Tensor:
    """Float32 images; bytes become 0 to 1."""
    return images.to(torch.float32).mul_(1 / 255) if images.dtype == torch.uint8 else images


def read(setting: Setting, *, size: int | None = None, least: int = 1, channels: int | None = None, labelled: bool = False) -> Pixels:
    """Read, check, resize and split what ``setting.data`` names: anything the image modality reads, or an array (or ``.npy`` file).

    ``setting.validation`` is held out where it is given, else a seeded tenth.

    Args:
        setting: What was asked for.
        size: Side of the square images; None: as they are where all have one size of at most 64 pixels, else the smaller of 64 and
            their usual shorter side.
        least: Where nobody says a size, smaller images are enlarged to this side.
        channels: 1 or 3; None: 1 where the images are grey.
        labelled: Whether every image must have a label.

    Raises:
        InputError: The source cannot be read, an image is broken (with ``skip_bad`` it is counted instead), or there are too few.
    """
    first = _source(setting.data, setting)
    shape = first.shape(size, channels)
    if size is None and min(shape[1:]) < least:
        shape = first.shape(least, shape[0])
    images, labels, corpus = first.fill(shape, setting, labelled=labelled)
    if setting.validation is not None:
        second = _source(setting.validation, setting)
        held, held_labels, other = second.fill(shape, replace(setting, folder=setting.folder / "validation"), labelled=labelled)
        train, keep = torch.arange(len(images)), _permutation(len(held), setting.seed)[:HELD_MOST]
        items = {**corpus.items, "held-out images": len(keep)}
        corpus = replace(corpus, items=items, left_out=dict(Counter(corpus.left_out) + Counter(other.left_out)))
    else:
        if len(images) < 2:
            raise DataError(f"{corpus.source} has one image", "at least two, of which one is held out", "give more images, or --validation")
        order = _permutation(len(images), setting.seed)
        n_held = min(max(1, int(FRAC_HELD * len(images))), HELD_MOST)
        keep, train = order[:n_held], order[n_held:].sort().values
        held, held_labels = images, labels
        corpus = replace(corpus, items={"images": len(train), "held-out images": n_held})
    held = held[keep].clone()
    if labels is None or held_labels is None:
        return Pixels(images, train, held, corpus)
    names = tuple(sorted(set(labels)))
    known = {name: i for i, name in enumerate(names)}
    unknown = sorted({held_labels[i] for i in keep.tolist()} - known.keys())
    if unknown:
        raise DataError(
            f"held-out images have labels that no other image has: {', '.join(unknown[:5])}", do="give more images of each label"
        )
    index = torch.tensor([known[name] for name in labels])
    held_index = torch.tensor([known[held_labels[i]] for i in keep.tolist()])
    return Pixels(images, train, held, corpus, names, index, held_index)


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


# Sources ----------------------------------------------------------------------------------------------------------------------------

Filled = tuple[Tensor, list[str] | None, Corpus]


def _source(data: Any, setting: Setting) -> _Arrays | _Files:
    labels = None
    if isinstance(data, Mapping) and isinstance(data.get("image"), (np.ndarray, Tensor)):
        data, labels = data["image"], data.get("label")
    name = "the array"
    if isinstance(data, (str, os.PathLike)) and Path(data).suffix.lower() == ".npy":
        name = str(data)
        try:
            data = np.load(data, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileUnreadable(f"{name}: {error}", "an array that numpy.save wrote, not of objects", "check the path") from error
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        return _Arrays(_as_images(data, name), name, None if labels is None else [str(label) for label in labels])
    part = registry.create("modalities", "image", options=setting.modality_options)
    return _Files(sources.opened(data, part, skip_bad=setting.skip_bad), part, setting)


def _as_images(array: NDArray[Any], name: str) -> NDArray[Any]:
    """(N, F), (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W)."""
    if array.dtype == bool:
        array = array.view(np.uint8) * np.uint8(255)
    numeric = array.dtype == np.uint8 or array.dtype.kind == "f"
    if not numeric or array.ndim not in (2, 3, 4) or len(array) == 0:
        raise DataError(
            f"{name} is {array.dtype} of shape {array.shape}",
            "bytes or floats: (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W)",
            "convert it",
        )
    if array.ndim == 2:
        return array[:, None, None, :]
    if array.ndim == 3:
        return array[:, None]
    if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    return array


@dataclass(frozen=True)
class _Arrays:
    """Images that lie in an array (N, C, H, W) already; they are neither resized nor recoloured."""

    array: NDArray[Any]
    name: str
    labels: list[str] | None

    def shape(self, size: int | None, channels: int | None) -> tuple[int, int, int]:
        c, h, w = self.array.shape[1:]
        if (size is not None and (h, w) != (size, size)) or (channels is not None and c != channels):
            raise DataError(
                f"{self.name} has images of {h} x {w} pixels and {c} channels", f"size = {size}, channels = {channels}", "resize it"
            )
        return c, h, w

    def fill(self, shape: tuple[int, int, int], setting: Setting, *, labelled: bool) -> Filled:
        if self.array.shape[1:] != shape:
            raise DataError(f"{self.name} has images of {self.array.shape[1:]}", f"{shape} (C, H, W) as the training images", "resize it")
        if labelled and self.labels is None:
            raise DataError(f"{self.name} has no labels", "a label for every image", 'give {"image": array, "label": [...]}')
        kind = np.dtype(np.uint8) if self.array.dtype == np.uint8 else np.dtype(np.float32)
        room = _Room(len(self.array), shape, kind, setting.folder)
        for start in range(0, len(self.array), AT_ONCE):
            block = self.array[start : start + AT_ONCE].astype(kind)
            if not np.isfinite(block).all():
                raise DataError(f"{self.name} has values that are not finite near row {start}", do="replace or leave out those rows")
            room.add(block)
        images, digest = room.done()
        return images, self.labels, Corpus(self.name, digest, {"images": len(images)})


class _Files:
    """Images that a table names or holds."""

    def __init__(self, table: Table, part: Any, setting: Setting) -> None:
        self.table = table
        given = {role: column for role, column in setting.column.items() if role != "label"}
        self.values = table.columns[part.infer(table.columns, given)["image"]]
        label = setting.column.get("label", "label")
        if "label" in setting.column and label not in table.columns:
            raise ColumnNotFound(f"{table.source} has no column {label!r}", f"columns: {', '.join(table.columns)}", "correct the name")
        self.labels = table.columns.get(label)

    def _load(self, rows: Sequence[int], geometry: Geometry | None) -> list[Picture]:
        values, folder = [self.values[i] for i in rows], sources.folder_of(self.table.source)
        return read_all(values, folder=folder, shape=geometry, form="" if geometry is None else geometry.form)

    def shape(self, size: int | None, channels: int | None) -> tuple[int, int, int]:
        """(C, H, W) that suits the source, told from a sample."""
        rows = sorted({int(i) for i in np.linspace(0, len(self.values) - 1, SAMPLE)})
        found = [picture for picture in self._load(rows, None) if not picture.problem]
        grey = all(p.small.ndim == 2 or (p.small == p.small[..., :1]).all() for p in found)
        channels = channels or (1 if found and grey else 3)
        sizes = {picture.size[::-1] for picture in found}
        if size is not None:
            return channels, size, size
        if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST:
            return channels, *next(iter(sizes))
        side = min(LARGEST, int(np.median([min(s) for s in sizes]))) if sizes else LARGEST
        return channels, side, side

    def fill(self, shape: tuple[int, int, int], setting: Setting, *, labelled: bool) -> Filled:
        if labelled and self.labels is None:
            columns = ", ".join(self.table.columns)
            raise ColumnNotFound(f"{self.table.source} has no column of labels", f"columns: {columns}", "name it: --column label=NAME")
        n, left_out, names, first_bad = len(self.values), Counter(self.table.left_out), [], ""
        room = _Room(n, shape, np.dtype(np.uint8), setting.folder)
        geometry = Geometry(shape[1:], None, None, channels=shape[0])  # as the bodies that are saved with this size do it
        for start in range(0, n, AT_ONCE):
            rows = range(start, min(n, start + AT_ONCE))
            block = []
            for i, picture in zip(rows, self._load(rows, geometry), strict=True):
                label = None if self.labels is None else self.labels[i]
                reason = picture.problem or ("missing label" if labelled and label in (None, "") else "")
                if reason:
                    left_out[reason] += 1
                    first_bad = first_bad or f"{picture.name or f'{self.table.source}, row {self.table.rows[i]}'}: {reason}"
                    continue
                block.append(fitted(picture, geometry, geometry.form))
                names.append(str(label))
            if first_bad and not setting.skip_bad:
                raise DataError(first_bad, "images that can be read", "repair it, or leave such images out with --skip-bad")
            if block:
                stacked = np.stack(block)
                room.add(stacked[:, None] if shape[0] == 1 else stacked.transpose(0, 3, 1, 2))
        if not names:
            raise DataError(
                f"{self.table.source}: none of {n:,} images can be used ({first_bad})", "at least two images", "check the files"
            )
        images, digest = room.done()
        corpus = Corpus(self.table.source, digest, {"images": len(images)}, dict(left_out), tuple(self.table.notes))
        return images, None if self.labels is None else names, corpus


class _Room:
    """Images are added one block after another, in memory, or in a mapped file where they are many; hashed as they come."""

    def __init__(self, n: int, shape: tuple[int, int, int], kind: np.dtype[Any], folder: Path) -> None:
        self._n, self._digest = 0, hashlib.blake2b(digest_size=16)
        whole = (n, *shape)
        self._path: Path | None = None
        if int(np.prod(whole)) * kind.itemsize <= IN_MEMORY_BYTES:
            self._images: NDArray[Any] = np.empty(whole, kind)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"pixels-{os.getpid()}.npy"
            self._images = np.lib.format.open_memmap(self._path, mode="w+", dtype=kind, shape=whole)

    def add(self, block: NDArray[Any]) -> None:
        """Append (B, C, H, W)."""
        self._images[self._n : self._n + len(block)] = block
        self._digest.update(np.ascontiguousarray(block).data)
        self._n += len(block)

    def done(self) -> tuple[Tensor, str]:
        """What was added, and its hash."""
        if self._path is not None:
            self._path.unlink()  # the mapping keeps the file until the process ends, whichever way it ends
        return torch.from_numpy(self._images[: self._n]), self._digest.hexdigest()
