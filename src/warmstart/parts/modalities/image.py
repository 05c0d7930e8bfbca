"""Images: files in a folder per class, paths or bytes in a table, IDX files, arrays; prepared as the backbone's processor says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.core.errors import BadOption
from warmstart.core.protocols import Encoded, Input
from warmstart.engine import box_files, idx, images, mask_files, media, preprocessing, store, variants
from warmstart.engine.augment import Augmentation
from warmstart.engine.image_features import ImageFeatures
from warmstart.engine.images import Picture
from warmstart.engine.media import SingleFeaturizer

if TYPE_CHECKING:
    from torch import Tensor

    from warmstart.engine.draft import Table

NAMES = ("image", "img", "picture", "photo", "pixels", *media.FILE_NAMES, "image_path", "filepath")

SIDES = (8, 4096)


@dataclass(frozen=True)
class Options:
    """Which images a body sees, and how views (``--views``) differ from their image."""

    size: str = ""
    """Squeeze the whole image to so many pixels, "320" or "320x416" (height x width); empty: as the body was trained."""
    flip: float = 0.5
    "chance that a view is a mirror image; 0 where left and right differ, as in writing"
    smallest: float = 0.5
    "least part of a large image that a view shows; small images are shifted"
    jitter: float = 0.3
    "strength of changes of brightness, contrast and colour"


class Part:
    """The modality of images: inputs are ``(Picture,)``, or before they are loaded a path, bytes, an array or a Pillow image."""

    name = "image"
    plural = "images"
    suffixes: tuple[str, ...] = images.SUFFIXES
    roles: tuple[str, ...] = ("image",)
    objective = "contrastive"
    default_backbone: str | None = None
    at_once = 500
    unit = "pixels"

    def __init__(self, options: Options) -> None:
        self.options = options
        self._whole = _sides(options.size)
        if not (0 <= options.flip <= 1 and 0 < options.smallest <= 1 and 0 <= options.jitter <= 1):
            raise BadOption("flip, smallest or jitter is not between 0 and 1", "shares", "give for example --set modality.flip=0.5")
        self._augmentation = Augmentation(crop="resized", smallest=options.smallest, flip=options.flip, jitter=options.jitter)

    def read(self, source: Any, *, skip_bad: bool) -> Table | None:
        """A folder of images, an image file, an IDX file, a list of images, or images with boxes or masks; None for anything else.

        Raises:
            DataError: A folder of splits, or of no use; a wrong box.
            FileUnreadable: A damaged IDX file, or one of boxes or of names.
        """
        from warmstart.engine.draft import Table

        if isinstance(source, list | tuple) and source and all(images.is_image(v) and not isinstance(v, Mapping) for v in source):
            return Table({"image": list(source)}, list(range(1, len(source) + 1)), "the list")
        found = box_files.read(source, skip_bad=skip_bad) or mask_files.read(source, skip_bad=skip_bad)
        path = media.path_of(source)
        if found is not None or path is None:
            return found
        if path.is_dir():
            return media.read_folder(path, suffixes=images.SUFFIXES, role="image")
        if path.suffix.lower() in images.SUFFIXES and path.is_file():
            return Table({"image": [str(path.absolute())]}, [1], str(path))
        return idx.read(path)

    def matches(self, columns: Mapping[str, Sequence[Any]], *, folder: Path) -> bool:
        """Whether a column holds images; of names of files one at least must be there."""
        return any(media.holds(values, images.is_image, folder) for values in columns.values())

    def infer(self, columns: Mapping[str, Sequence[Any]], given: Mapping[str, str]) -> dict[str, str]:
        """The column of images, by a well-known name where there are several.

        Raises:
            ColumnNotFound: No column holds images, or several do.
        """
        return media.infer(columns, given, role="image", looks=images.is_image, names=NAMES, plural="images")

    def load(self, values: Sequence[Input], *, folder: Path, body: Path | None) -> list[Input]:
        """Every image decoded, in threads, at the size that the body takes; with no body a small one is kept alone."""
        raw = [value[0] for value in values]
        if body is None:
            return [(picture,) for picture in images.read_all(raw, folder=folder, shape=None, form="")]
        how = preprocessing.of(body, whole=self._whole)
        return [(picture,) for picture in images.read_all(raw, folder=folder, shape=how.shape, form=how.form, need=how.need)]

    def check(self, values: Sequence[Any]) -> str | None:
        """Why an image cannot be used ("no such file", "truncated image", "too many pixels", ...), or None when it can."""
        for value in values:
            if not isinstance(value, Picture):
                return "missing image" if value is None else "not an image"
            if value.problem:
                return value.problem
        return None

    def notes(self, values: Sequence[Input]) -> list[str]:
        """Nothing."""
        return []

    def content(self, value: Input) -> bytes:
        """Hash of the decoded pixels: the same for an image and its copy in another lossless format."""
        digest: bytes = value[0].digest
        return digest

    def show(self, value: Input) -> str:
        """Its file and its size."""
        picture: Picture = value[0]
        return f"{Path(picture.name).name} ({picture.size[0]} x {picture.size[1]})"

    def where(self, value: Input) -> str:
        """Its file."""
        return str(value[0]) if isinstance(value[0], Picture) else ""

    def picture(self, value: Input) -> str:
        """A small JPEG or PNG as a data URI."""
        return images.data_uri(value[0])

    @property
    def augmentation(self) -> str:
        """What ``view`` does."""
        return repr(self._augmentation)

    def view(self, value: Input, random: np.random.Generator) -> Input:
        """A random view: cropped or shifted, perhaps mirrored, other colours."""
        return (variants.of_image(value[0], self._augmentation, random),)

    def extent(self, value: Input) -> float | None:
        """The longer side."""
        return float(max(value[0].size))

    def encoder(self, folder: Path, max_length: int) -> ImageEncoder:
        """The preprocessing that the body in ``folder`` was trained with; images have no ``max_length``.

        Raises:
            BackboneNotFound: The folder says nothing of images.
        """
        return ImageEncoder(folder, whole=self._whole)

    def featurizer(self, options: Mapping[str, Any]) -> SingleFeaturizer:
        """Oriented gradients, colours and a thumbnail.

        Raises:
            BadOption: There are no options.
        """
        if options:
            raise BadOption(f"no option {next(iter(options))!r}", "no options", "leave it out")
        return SingleFeaturizer(ImageFeatures())

    def load_featurizer(self, folder: Path) -> SingleFeaturizer:
        """The features that ``SingleFeaturizer.save`` wrote."""
        return SingleFeaturizer(ImageFeatures.load(folder))


class ImageEncoder:
    """A body's preprocessing: geometry when an example is encoded (or was, when it was read), normalisation when a batch is made."""

    def __init__(self, folder: Path, *, whole: tuple[int, int] | None = None) -> None:
        self._how = preprocessing.of(folder, whole=whole)
        self.fingerprint, self.instant = self._how.fingerprint, self._how.processor is None
        self.max_length = self.size(self._how.encode(Picture(np.zeros((64, 64), np.uint8), "")))

    def size(self, example: Encoded) -> int:
        """Patches of 16 x 16 pixels."""
        return preprocessing.size(example)

    def encode(self, values: Sequence[Input]) -> list[Encoded]:
        """``pixels (H, W, 3)`` uint8 of each image."""
        return [self._how.encode(value[0]) for value in values]

    def collate(self, examples: Sequence[Encoded], *, length: int = 0) -> dict[str, Tensor]:
        """``pixel_values (B, C, H, W)`` float32."""
        return {"pixel_values": self._how.collate(examples)}

    def save(self, folder: Path) -> None:
        """Write the ``preprocessor_config.json`` that ``AutoImageProcessor`` reads, or that of a body of our own."""
        store.write_json(folder / preprocessing.FILE, self._how.settings)


def _sides(size: str) -> tuple[int, int] | None:
    """Height and width of the option ``size``.

    Raises:
        BadOption: It is neither a number nor two.
    """
    if not size:
        return None
    cells = size.lower().split("x")
    if len(cells) > 2 or not all(cell.strip().isdecimal() and SIDES[0] <= int(cell) <= SIDES[1] for cell in cells):
        raise BadOption(f"modality.size = {size!r}", f"320, or 320x416 (height x width), each from {SIDES[0]} to {SIDES[1]}", "correct it")
    return int(cells[0]), int(cells[-1])
