"""A Keras model on the torch backend: keras:NAME for an architecture of keras.applications, or a .keras file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from warmstart.core.errors import BackboneNotFound, BadOption

PREFIX = "keras:"


@dataclass(frozen=True)
class Options:
    """What can be set."""

    weights: str = "none"
    "of keras:NAME: none (random), a file that Keras saved, or imagenet, which Keras downloads"
    size: int | None = None
    "pixels on each side; none: what the architecture is made for"
    crop: bool = True
    "cut the middle out of a photograph (seven eighths of its shorter side) instead of squeezing it"
    scale: float = 0.00392156862745098
    "of a file: pixels from 0 to 255 are multiplied by this"
    mean: str = ""
    "then this is taken off, a number for each channel with commas between"
    std: str = ""
    "and the result divided by this"
    bgr: bool = False
    "of a file: it takes blue first"
    seed: int = 0
    "of random weights"
    licence: str = "unknown"
    "of the weights, such as apache-2.0"


class Part:
    """Makes a folder of the model once: its architecture as JSON, its weights as safetensors."""

    name = "keras"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The folder made of ``keras:NAME`` or ``FILE.keras``.

        Raises:
            BackboneNotFound: No such file or architecture, or one that takes no image.
            MissingLibrary: Keras is not installed.
        """
        file = Path(name).expanduser()
        of_file = file.suffix.lower() == ".keras"
        if not of_file and not name.startswith(PREFIX):
            return None
        if of_file and not file.is_file():
            raise BackboneNotFound(f"no file {name}", "a .keras file", "correct the path")
        from warmstart.engine import keras_files, prepared

        given = {key: value for key, value in vars(self.options).items() if key != "licence"}
        try:
            numbers = {key: tuple(float(n) for n in str(given.pop(key)).split(",") if n.strip()) for key in ("mean", "std")}
        except ValueError as error:
            raise BadOption(f"backbone.mean or backbone.std: {error}", "numbers with commas between", "correct it") from None
        asked = keras_files.Asked(**given, mean=numbers["mean"], std=numbers["std"])
        weights = Path(asked.weights)
        if asked.weights == "imagenet" and not of_file:
            print(f"the weights of {name} are downloaded by Keras, where it has not got them yet", file=sys.stderr)

        def make(folder: Path) -> None:
            if of_file:
                keras_files.write_file(file, asked, folder)
            else:
                keras_files.write_application(name.removeprefix(PREFIX), asked, folder)

        files = [path for path in (file, weights) if path.is_file()]
        described = {**vars(asked), "name": file.name}
        return prepared.folder(file.name, licence=self.options.licence, files=files, asked=described, make=make)

    def known(self) -> dict[str, Path | None]:
        """Nothing: a name alone has no trained weights."""
        return {}
