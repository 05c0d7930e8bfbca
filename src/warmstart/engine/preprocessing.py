"""What a body for images does to pixels before it sees them: geometry once, on uint8; normalisation when a batch is made.

A folder says it in ``preprocessor_config.json`` (transformers) or in ``config.json`` under ``image`` (a body of our own). The processor
of transformers is the reference: ours is used where it gives the same on a test image (it is several times quicker, and what it keeps of
an image is a quarter as large), else the processor itself is called for every image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.core.errors import BackboneNotFound
from warmstart.core.protocols import Encoded
from warmstart.engine import images, store
from warmstart.engine.images import Picture, Pixels

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 16
"""A patch of so many pixels squared counts as one token: what ViT makes of it, and a fair unit for convolutions too."""

FILE = "preprocessor_config.json"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Geometry:
    """How an image of any size becomes one of the body's: ``resize`` to (H, W), or its shorter side to ``short``; then ``crop`` (H, W).

    ``resample`` is Pillow's number of the filter; ``channels`` 1 means grey.
    """

    resize: tuple[int, int] | None
    short: int | None
    crop: tuple[int, int] | None
    resample: int = 2
    channels: int = 3

    @property
    def form(self) -> str:
        """Its name: pictures of the same form need not be worked on again."""
        return repr(self)

    def __call__(self, pixels: Pixels) -> Pixels:
        """(H, W, 3), or (H, W) for one channel."""
        pixels = _channels(pixels, self.channels)
        height, width = pixels.shape[:2]
        if self.resize is not None:
            pixels = images.resized(pixels, *self.resize, resample=self.resample)
        elif self.short is not None:
            long = int(self.short * max(height, width) / min(height, width))
            sides = (self.short, long) if height <= width else (long, self.short)
            pixels = images.resized(pixels, *sides, resample=self.resample)
        return pixels if self.crop is None else _cropped(pixels, *self.crop)


@dataclass(frozen=True)
class Preprocessing:
    """Geometry, then ``(pixels * scale - mean) / std`` for each channel. ``processor`` is set where transformers' own is called instead.

    ``settings`` is the JSON object of ``preprocessor_config.json`` that says all this.
    """

    geometry: Geometry
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: dict[str, Any]
    processor: Any = None

    @property
    def fingerprint(self) -> str:
        """Equal for preprocessing that gives the same."""
        described = json.dumps([self.geometry.channels, self.settings], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def shape(self, pixels: Pixels) -> Pixels:
        """What is kept of an image that was just decoded."""
        return _channels(pixels, self.geometry.channels) if self.processor is not None else self.geometry(pixels)

    @property
    def need(self) -> int:
        """Shorter side in pixels that is enough for ``shape``; without a known size as many as there are."""
        sides = self.geometry.resize or (self.geometry.short,) if self.processor is None else (None,)
        return max(side or images.MAX_PIXELS for side in sides)

    @property
    def form(self) -> str:
        """The name of ``shape``."""
        return "whole" if self.processor is not None else self.geometry.form

    def encode(self, picture: Picture) -> Encoded:
        """One example: ``pixels (H, W[, 3])`` uint8, or ``pixel_values (C, H, W)`` float32 as the processor gives them."""
        if self.processor is None:
            return {"pixels": images.fitted(picture, self.geometry, self.form)}
        return {"pixel_values": _processed(self.processor, images.fitted(picture, self.shape, self.form))}

    def collate(self, examples: Sequence[Encoded]) -> Tensor:
        """``pixel_values (B, C, H, W)`` float32, smaller maps padded with zeros to the largest."""
        import torch

        if self.processor is not None:
            return torch.from_numpy(_stacked([example["pixel_values"] for example in examples]))
        stacked = torch.from_numpy(np.stack([example["pixels"] for example in examples]))
        x = (stacked.unsqueeze(1) if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)).float()  # (B, C, H, W)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((x * self.scale - mean) / std).contiguous()


def size(example: Encoded) -> int:
    """Patches of ``PATCH`` x ``PATCH`` pixels, at least one."""
    height, width = example["pixels"].shape[:2] if "pixels" in example else example["pixel_values"].shape[-2:]
    return int(-(-height // PATCH) * -(-width // PATCH))


def of(folder: Path, *, whole: tuple[int, int] | None = None) -> Preprocessing:
    """The preprocessing that belongs to the body in ``folder``; with ``whole`` the whole image is squeezed to (H, W) instead, uncropped.

    Raises:
        BackboneNotFound: The folder says nothing of images.
    """
    return _as_trained(folder) if whole is None else _squeezed(_as_trained(folder), *whole)


def _as_trained(folder: Path) -> Preprocessing:
    settings = store.read_object(folder / FILE)
    for found in (settings, store.read_config(folder)):  # what was written beside a body is younger than what the body was made with
        if isinstance(found.get("image"), Mapping):
            return _own(folder, found["image"])
    if "patches" in settings:
        raise BackboneNotFound(f"{folder} is a body for sound", "a body for images", "name an image backbone with --backbone")
    if settings:
        return _of_processor(folder, settings)
    raise BackboneNotFound(
        f"{folder} is no body for images: it has no {FILE}",
        f"{FILE} beside config.json, or a body of warmstart with its image size in config.json",
        "name an image backbone with --backbone, or copy its preprocessor file there too",
    )


def _squeezed(found: Preprocessing, height: int, width: int) -> Preprocessing:
    """The same values of pixels in another geometry, whose settings say so to whoever reads them later."""
    channels = found.geometry.channels
    if found.processor is not None:
        words = found.processor.to_dict()
        normal = bool(words.get("do_normalize"))
        mean, std = (tuple(map(float, words[key])) if normal else (d,) * channels for key, d in (("image_mean", 0.0), ("image_std", 1.0)))
        scale = float(words.get("rescale_factor", 1 / 255)) if words.get("do_rescale") else 1.0
    else:
        mean, std, scale = found.mean, found.std, found.scale
    geometry = Geometry((height, width), None, None, channels=channels)
    if "image" in found.settings:
        settings: dict[str, Any] = {"image": {**found.settings["image"], "size": [height, width]}}
    else:
        settings = {**plain((channels, height, width), mean=mean, std=std), "rescale_factor": scale}
    return Preprocessing(geometry, scale, mean, std, settings)


def plain(shape: tuple[int, int, int], *, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """What ``AutoImageProcessor`` reads beside a body for images of ``shape`` (C, H, W): resized, from 0 to 1, normalised."""
    channels, height, width = shape
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


PIXELS: dict[str, dict[str, Any]] = {
    "imagenet": {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "signed": {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "caffe": {"do_rescale": False, "image_mean": [123.0, 117.0, 104.0], "image_std": [1.0] * 3},
}
"""How published networks take pixels: normalised by ImageNet's statistics; from -1 to 1; from 0 to 255 without the mean."""


def write_cropped(folder: Path, *, size: int, pixels: str | Mapping[str, Any], short: int | None = None) -> None:
    """Write what ``AutoImageProcessor`` reads beside a body for photographs: the shorter side to ``short`` (8/7 of ``size``), the middle
    cut out, pixels as ``pixels`` says, or one of ``PIXELS`` does."""
    settings = {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": short or round(size * 8 / 7)},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_normalize": True,
    }
    store.write_json(folder / FILE, settings | dict(PIXELS[pixels] if isinstance(pixels, str) else pixels))


def _own(folder: Path, image: Mapping[str, Any]) -> Preprocessing:
    try:
        height, width = (int(n) for n in image["size"])
        channels = int(image.get("channels", 3))
        mean, std = (
            tuple(float(v) for v in image.get(name, default)) for name, default in (("mean", [0] * channels), ("std", [1] * channels))
        )
        if not (len(mean) == len(std) == channels) or channels not in (1, 3) or min(height, width) < 1:
            raise ValueError("mean and std need one number for each of 1 or 3 channels")
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneNotFound(
            f'"image" in {folder / "config.json"} cannot be used: {error}',
            '{"size": [H, W], "channels": 3, "mean": [...], "std": [...]}',
            "correct it",
        ) from None
    geometry = Geometry((height, width), None, None, channels=channels)
    image = {"size": [height, width], "channels": channels, "mean": list(mean), "std": list(std)}
    return Preprocessing(geometry, 1 / 255, mean, std, {"image": image})


def _of_processor(folder: Path, written: dict[str, Any]) -> Preprocessing:
    from transformers import AutoImageProcessor

    store.quiet_transformers()
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a processor that needs torchvision raises what its library likes
        reason = str(error).strip().split("\n")[0][:200]
        raise BackboneNotFound(
            f"the image processor in {folder} cannot be loaded: {reason}", "one that works on Pillow images", "use another backbone"
        ) from None
    channels = int(store.read_config(folder).get("num_channels", 3))
    own = _as_own(processor.to_dict(), channels, written)
    if own is not None and _agrees(own, processor):
        return own
    return Preprocessing(Geometry(None, None, None, channels=channels), 1.0, (), (), written, processor)


def _as_own(settings: Mapping[str, Any], channels: int, written: dict[str, Any]) -> Preprocessing | None:
    """What the settings of a processor come to, where they say it in the usual words."""
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    resize, short, cut = None, None, None
    if settings.get("do_resize"):
        if "shortest_edge" in size and "longest_edge" not in size:
            short = int(size["shortest_edge"])
        elif "height" in size and "width" in size:
            resize = (int(size["height"]), int(size["width"]))
        else:
            return None
    if settings.get("do_center_crop"):
        cut = (int(crop["height"]), int(crop["width"])) if "height" in crop else None
    if "crop_pct" in settings and short is not None:  # ConvNeXt: small inputs are cut out of a larger one, large ones are squeezed
        cut = (short, short) if short < 384 else None
        resize, short = ((short, short), None) if short >= 384 else (None, int(short / settings["crop_pct"]))
    rescale = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale") else 1.0
    normal = bool(settings.get("do_normalize"))
    mean, std = (
        tuple(float(v) for v in settings[key]) if normal else (d,) * channels for key, d in (("image_mean", 0.0), ("image_std", 1.0))
    )
    if not (len(mean) == len(std) == channels):
        return None
    geometry = Geometry(resize, short, cut, int(settings.get("resample") or 0), channels)
    return Preprocessing(geometry, rescale, mean, std, written)


def _agrees(own: Preprocessing, processor: Any) -> bool:
    """Whether both give the same for a wide and a tall image with something in it."""
    random = np.random.default_rng(0)
    for height, width in ((70, 90), (311, 240)):
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        pixels = images.resized(coarse, height, width)
        try:
            expected = _processed(processor, _channels(pixels, own.geometry.channels))
            found = own.collate([{"pixels": own.shape(pixels)}])[0].numpy()
        except (ValueError, TypeError, KeyError):
            return False
        if found.shape != expected.shape or float(np.abs(found - expected).max()) > TOLERANCE:
            return False
    return True


def _channels(pixels: Pixels, channels: int) -> Pixels:
    """Pixels with this number of channels."""
    return images.grey(pixels) if channels == 1 else images.rgb(pixels)


def _processed(processor: Any, pixels: Pixels) -> Any:
    from PIL import Image

    found = processor(images=Image.fromarray(pixels), return_tensors="np")
    return np.asarray(found["pixel_values"][0], dtype=np.float32)


def _stacked(arrays: Sequence[Any]) -> Any:
    shapes = np.array([array.shape for array in arrays])
    out = np.zeros((len(arrays), *shapes.max(0)), np.float32)
    for whole, array in zip(out, arrays, strict=True):
        whole[tuple(slice(n) for n in array.shape)] = array
    return out


def _cropped(pixels: Pixels, height: int, width: int) -> Pixels:
    """The centre, with black around where the image is smaller (transformers' ``center_crop``)."""
    old_height, old_width = pixels.shape[:2]
    if height > old_height or width > old_width:
        tall, wide = max(height, old_height), max(width, old_width)
        whole = np.zeros((tall, wide, *pixels.shape[2:]), np.uint8)
        top, left = -(-(tall - old_height) // 2), -(-(wide - old_width) // 2)
        whole[top : top + old_height, left : left + old_width] = pixels
        pixels, old_height, old_width = whole, tall, wide
    top, left = (old_height - height) // 2, (old_width - width) // 2
    return pixels[top : top + height, left : left + width]
