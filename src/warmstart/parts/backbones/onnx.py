"""An ONNX file with an image or sound as its input, used frozen by ONNX Runtime; options may stand in a JSON file beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from warmstart.core.errors import BackboneNotFound


@dataclass(frozen=True)
class Options:
    """What can be set."""

    modality: Literal["auto", "image", "audio"] = "auto"
    "what it takes; auto tells from the shape of its input"
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    "where its input has the channels"
    features: str = ""
    "tensors of the graph that are the features, with commas between; empty: its output, or what goes into a classifier's last layer"
    scale: float = 0.00392156862745098
    "pixels from 0 to 255 are multiplied by this"
    mean: str = ""
    "then this is taken off, a number for each channel with commas between"
    std: str = ""
    "and the result divided by this"
    size: int | None = None
    "pixels on each side, where the graph leaves them free"
    crop: bool = True
    "cut the middle out of a photograph (seven eighths of its shorter side) instead of squeezing it"
    rate: int = 16000
    "samples of sound per second"
    gain: float = 1.0
    "samples from -1 to 1 are multiplied by this"
    front: str = ""
    "a second ONNX file beside this one that makes frames of the wave"
    front_scale: float = 1.0
    "its frames are multiplied by this"
    front_offset: float = 0.0
    "and this is added"
    patch: int | None = None
    "frames (or without a front samples) that go in at once, where the graph leaves them free"
    step: int | None = None
    "frames from one such patch to the next; none: a whole patch"
    margin: float | None = None
    "seconds of silence put before and after a recording; none: 0.5 with a front, else 0"
    licence: str = "unknown"
    "of the weights, such as apache-2.0"


class Part:
    """Makes a folder of the file once: graph, configuration, preprocessing."""

    name = "onnx"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The folder made of ``FILE.onnx``, or of a folder with ``model.onnx`` that warmstart did not write.

        Raises:
            BackboneNotFound: No such file, or one that takes no image and no sound.
            MissingLibrary: onnx is not installed.
        """
        given = Path(name).expanduser()
        file = given / "model.onnx" if given.is_dir() and not (given / "config.json").is_file() else given
        if file.suffix.lower() != ".onnx" or (file != given and not file.is_file()):
            return None
        if not file.is_file():
            raise BackboneNotFound(f"no file {name}", "an ONNX file", "correct the path")
        from warmstart.engine import onnx_graph, prepared, store

        beside = store.read_object(file.with_suffix(".json"))
        asked = onnx_graph.asked(self.options, beside, file)
        licence = self.options.licence if self.options.licence != "unknown" else str(beside.get("licence", "unknown"))

        def make(folder: Path) -> None:
            onnx_graph.write(file, asked, folder)

        files = [file, *([asked.front] if asked.front is not None else [])]
        described = {key: value for key, value in asdict(asked).items() if key != "front"}
        return prepared.folder(file.name, licence=licence, files=files, asked=described, make=make)

    def known(self) -> dict[str, Path | None]:
        """Nothing: the machine is not searched for files."""
        return {}
