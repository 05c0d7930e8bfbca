"""Images to learn from, batch by batch: decoded once, augmented as whole batches, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import BadOption
from warmstart.engine import augment, convnets, pixels, preprocessing, store
from warmstart.engine.augment import Augmentation
from warmstart.engine.learner import Picture, Setting
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels
from warmstart.engine.seeds import generator, seeded

MOMENTS_FROM = 2_000
"""Images that mean and spread of the channels are told from."""
SHOWN = 8


class ImageStream:
    """Images as ``warmstart.engine.streams.Stream`` wants them. ``settings`` are those that ``decide`` gave, and ``augment``."""

    unit, looked_at = "images", 512

    def __init__(self, setting: Setting, images: Pixels, settings: Mapping[str, Any]) -> None:
        self.setting, self.images, self.settings = setting, images, settings
        self.corpus, self.names = images.corpus, images.names
        self.labels, self.held_labels = images.labels, images.held_labels
        self.train, self.n_held = images.train, len(images.held)
        self.augmentation = Augmentation(**settings["augment"])
        self._order = Order(len(images.train), settings["batch"], seed=setting.seed)
        self._mean, self._std = (torch.tensor(settings[k], device=setting.device).view(-1, 1, 1) for k in ("mean", "std"))

    @property
    def bytes(self) -> int:
        """Memory that the data take."""
        return self.images.images.nbytes

    def rows(self, step: int) -> Tensor:
        """Rows of the whole batch of a step, (B,)."""
        return self.train[self._order(step)]

    def views(self, step: int, which: int, *, shift: int = 0) -> dict[str, Tensor]:
        """View number ``which`` of this process's images of a step, or of those ``shift`` places further in the whole batch."""
        rows = self.rows(step)
        drawn = augment.draw(len(rows), generator=generator(self.setting.seed, step, which))
        rows, drawn = (values.roll(-shift, 0)[self.setting.rank :: self.setting.world] for values in (rows, drawn))
        return self._normal(self.augmentation(self.images.images[rows].to(self.setting.device), drawn))

    def known(self, rows: Tensor) -> dict[str, Tensor]:
        """Images of these rows as they are."""
        return self._plain(self.images.images[rows])

    def held(self, start: int, stop: int) -> dict[str, Tensor]:
        """Held-out images as they are."""
        return self._plain(self.images.held[start:stop])

    def held_views(self, start: int, stop: int, which: int) -> dict[str, Tensor]:
        """One view of held-out images, always the same."""
        chunk = self.images.held[start:stop].to(self.setting.device)
        return self._normal(self.augmentation(chunk, augment.draw(len(chunk), generator=generator(self.setting.seed, start, 8 + which))))

    def body(self) -> nn.Module:
        """The body on the CPU: from the folder to start from, else with fresh weights that follow from the seed."""
        if self.setting.start is not None:
            return store.load_body(self.setting.start).train()
        with seeded(self.setting.seed):
            return convnets.build(self.settings["body"]).train()

    def pictures(self) -> Sequence[Picture]:
        """A row of images as they are, and below them two views of each."""
        rows = self.rows(0)[:SHOWN]
        images = self.images.images[rows]
        drawn = [augment.draw(len(rows), generator=generator(self.setting.seed, 0, which)) for which in (0, 1)]
        lines = [pixels.unit(images), *(self.augmentation(images, numbers) for numbers in drawn)]
        grid = torch.cat([torch.cat(list(line), dim=2) for line in lines], dim=1)  # (C, 3 H, n W)
        return [Picture("images (top) and two random views of each", grid[0] if len(grid) == 1 else grid.permute(1, 2, 0))]

    def save(self, body: nn.Module, folder: Path) -> None:
        """Write the body and what is done to images before they reach it."""
        convnets.save(body, folder, mean=self.settings["mean"], std=self.settings["std"], shape=self.images.shape)

    def _plain(self, images: Tensor) -> dict[str, Tensor]:
        return self._normal(pixels.unit(images.to(self.setting.device)).clone())

    def _normal(self, x: Tensor) -> dict[str, Tensor]:
        """Images with values from 0 to 1 as the body takes them, in the memory layout that convolutions are fastest in."""
        x = x.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)
        height, width = x.shape[2:]
        if x.shape[1] == 1:  # both layouts have the same order in memory, and only the strides tell convolutions which is meant
            x = x.as_strided(x.shape, (height * width, 1, width, 1))
        return {"pixel_values": x}


def read(options: Any, setting: Setting, *, labelled: bool) -> Pixels:
    """The images at the size that the body takes.

    Raises:
        InputError: The data or ``options.pixels`` are wrong.
    """
    if setting.start is None:
        least = convnets.least(options.family)
        if options.pixels is not None and options.pixels < least:
            raise BadOption(f"pixels = {options.pixels} for {options.family}", f"at least {least}", f"give --set objective.pixels={least}")
        return pixels.read(setting, size=options.pixels, least=least, labelled=labelled)
    how = preprocessing.of(setting.start)
    size = how.geometry.crop or how.geometry.resize
    if how.processor is not None or size is None or size[0] != size[1] or abs(how.scale * 255 - 1) > 1e-6:
        raise BadOption(
            f"the preprocessing of {setting.start} is one of its own", "resizing to a square and normalising", "start from another body"
        )
    return pixels.read(setting, size=size[0], channels=how.geometry.channels, labelled=labelled)


def decide(options: Any, setting: Setting, images: Pixels, size: str) -> dict[str, Any]:
    """Settings that decide the body and what it is fed."""
    if setting.start is not None:
        how = preprocessing.of(setting.start)
        return {"modality": "image", "body": None, "mean": list(how.mean), "std": list(how.std)}
    mean, std = moments(images, setting.seed)
    asked = convnets.Asked(options.family, size, images.shape, options.width, options.depth, options.norm, options.config)
    return {"modality": "image", "body": convnets.form(asked), "mean": mean, "std": std}


def moments(images: Pixels, seed: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the training images, between 0 and 1, to four digits."""
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))
    rows = images.train[order[:MOMENTS_FROM]]
    std, mean = torch.std_mean(pixels.unit(images.images[rows]), dim=(0, 2, 3))
    return [round(v, 4) for v in mean.tolist()], [round(max(v, 1e-3), 4) for v in std.tolist()]
