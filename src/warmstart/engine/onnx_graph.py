"""What an ONNX file takes and gives, read from its graph, and the folder of a body that is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from warmstart.core.errors import BackboneNotFound, BadOption, FileNotFound, nearest
from warmstart.engine import foreign, patches, preprocessing, store
from warmstart.engine.onnx_body import FILE, FRONT, NHWC

FLOAT = 1
"""ONNX's number of float32."""
THROUGH = ("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Reshape", "Flatten", "Squeeze", "Cast")
"""What may follow a classifier's last linear layer."""
SIZE = 224
CROPPED_FROM = 100
"""Smaller inputs are not cut out of the middle of an image, but the whole image is resized."""


MARGIN = 0.5
"""Seconds of silence around a recording for a body behind a front: such bodies were made for streams, and see a word best when its patch
has passed over the whole of it. On spoken digits of 0.4 s a speech embedding gives 80 % without and 100 % with them."""


@dataclass(frozen=True)
class Asked:
    """What the user says of a file; what is None or auto is read from the graph."""

    modality: Literal["auto", "image", "audio"] = "auto"
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    features: tuple[str, ...] = ()
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    crop: bool = True
    rate: int = 16_000
    gain: float = 1.0
    front: Path | None = None
    front_scale: float = 1.0
    front_offset: float = 0.0
    patch: int | None = None
    step: int | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Port:
    """The graph's input: ``dims`` are None where they are free."""

    name: str
    dims: list[int | None]


def write(file: Path, asked: Asked, folder: Path) -> None:
    """Write the folder of a body: graph, ``config.json``, and what turns raw inputs into its batches.

    Raises:
        BackboneNotFound: The graph takes no image and no sound, or what was asked does not fit it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = foreign.read_onnx(file)
    port = _port(graph, file)
    modality = _modality(port, asked)
    layout = asked.layout if asked.layout != "auto" else _layout(port, modality, file)
    outputs = _outputs(graph, asked.features, modality, file)
    config = {"model_type": "warmstart-onnx", "shape": port.dims, "layout": layout, "outputs": outputs}
    foreign.write_onnx(folder / FILE, graph)
    if modality == "image":
        config |= _write_image(port, layout, asked, folder, file)
    else:
        _write_sound(port, layout, asked, folder, file)
    store.write_json(folder / "config.json", config)


def _port(graph: Any, file: Path) -> Port:
    weights = {tensor.name for tensor in graph.graph.initializer}
    found = [value for value in graph.graph.input if value.name not in weights]
    if len(found) != 1:
        given = f"{file} takes {len(found)} inputs ({', '.join(value.name for value in found)})"
        raise BackboneNotFound(given, "one, an image or sound", "export the encoder alone")
    kind = found[0].type.tensor_type
    dims = [int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]
    if kind.elem_type != FLOAT or not 2 <= len(dims) <= 4:
        given = f"{file} takes {found[0].name!r} of ONNX type {kind.elem_type} and {len(dims)} dimensions"
        raise BackboneNotFound(given, "float32: images of 4 dimensions, or waves or patches of sound", "export it with such an input")
    return Port(found[0].name, dims)


def _modality(port: Port, asked: Asked) -> str:
    if asked.modality == "image" and len(port.dims) != 4:
        given = f"the input {port.dims} of {len(port.dims)} dimensions for images"
        raise BackboneNotFound(given, "4: batch, channels, height, width", "leave backbone.modality out, or name another file")
    if asked.modality != "auto":
        return asked.modality
    return "audio" if asked.front is not None or len(port.dims) < 4 else "image"


def _layout(port: Port, modality: str, file: Path) -> str:
    if len(port.dims) < 4:
        return "N"
    channels = (1,) if modality == "audio" else (3, 1)
    for n in channels:
        if n in (port.dims[1], port.dims[3]):
            return "NCHW" if port.dims[1] == n else NHWC
    raise BackboneNotFound(
        f"where {file} has its channels cannot be told from its input {port.dims}",
        "1 or 3 in the second or the last place",
        "say it: --set backbone.layout=NCHW, or NHWC",
    )


def _outputs(graph: Any, asked: tuple[str, ...], modality: str, file: Path) -> list[str]:
    """Names of the tensors that are the features; those inside the graph become outputs of it.

    Where nothing is asked: of a classifier of images what goes into its last linear layer, else the first output.
    """
    first = graph.graph.output[0].name
    known = [name for node in graph.graph.node for name in node.output if name]
    names = list(asked) or [_before_classes(graph, first) if modality == "image" else first]
    for name in names:
        if name not in known:
            shown = ", ".join(known[-5:])
            raise BackboneNotFound(
                f"{file} has no tensor {name!r}.{nearest(name, known)}", f"one of its tensors, such as {shown}", "correct backbone.features"
            )
        if name not in {output.name for output in graph.graph.output}:
            graph.graph.output.add().name = name  # its type and shape are inferred when it is opened
    return names


def _before_classes(graph: Any, first: str) -> str:
    makers = {name: node for node in graph.graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.graph.initializer}
    name = first
    while name in makers:
        node = makers[name]
        inner = [value for value in node.input if value not in weights]
        if node.op_type in ("Gemm", "MatMul") and len(inner) == 1 and inner[0] in makers:
            return str(inner[0])
        if node.op_type not in (*THROUGH, "Add") or len(inner) != 1:
            break
        name = inner[0]
    return first


def _write_image(port: Port, layout: str, asked: Asked, folder: Path, file: Path) -> dict[str, Any]:
    """Preprocessing of images; gives what belongs into the body's configuration."""
    height, width = port.dims[1:3] if layout == NHWC else port.dims[2:4]
    channels = port.dims[3] if layout == NHWC else port.dims[1]
    channels = 3 if channels is None else channels
    height, width = height or asked.size or SIZE, width or asked.size or SIZE
    mean, std = asked.mean or (0.0,) * channels, asked.std or (1.0,) * channels
    if not (len(mean) == len(std) == channels) or min(std) == 0 or asked.scale <= 0 or channels not in (1, 3):
        given = f"mean {list(mean)}, std {list(std)} and scale {asked.scale} for {channels} channels of {file}"
        raise BadOption(given, "a number for each channel, std and scale not 0", "correct them")
    if asked.crop and height == width >= CROPPED_FROM and channels == 3:
        how = {"do_rescale": True, "rescale_factor": asked.scale, "image_mean": list(mean), "image_std": list(std)}
        preprocessing.write_cropped(folder, size=height, pixels=how)
        return {}
    unit = 255 * asked.scale  # our own form takes pixels divided by 255
    image = {"size": [height, width], "channels": channels, "mean": [m / unit for m in mean], "std": [s / unit for s in std]}
    return {"image": image}


def _write_sound(port: Port, layout: str, asked: Asked, folder: Path, file: Path) -> None:
    """Preprocessing of sound: patches of the wave, or of what the front makes of it."""
    inner = port.dims[1:3] if layout == NHWC else port.dims[2:] if layout == "NCHW" else port.dims[1:]
    inner = inner[1:] if layout == "N" and len(inner) == 2 and inner[0] == 1 and asked.front is None else inner  # (batch, 1, samples)
    patch = inner[0] or asked.patch or (asked.rate if asked.front is None else None)
    if patch is None or len(inner) != (1 if asked.front is None else 2):
        given = f"the input {port.dims} of {file} {'with' if asked.front else 'without'} a front"
        expected = "patches (batch, frames, bands) with a front, waves (batch, samples) without"
        raise BackboneNotFound(
            given, expected, "name the front: --set backbone.front=FILE.onnx, and where it is free backbone.patch=FRAMES"
        )
    how: dict[str, Any] = {"front": "wave", "gain": asked.gain}
    if asked.front is not None:
        foreign.write_onnx(folder / FRONT, foreign.read_onnx(asked.front))
        how = {"front": "onnx", "file": FRONT, "gain": asked.gain, "scale": asked.front_scale, "offset": asked.front_offset}
        how |= _measured(folder / FRONT, asked.rate, bands=inner[1])
    margin = asked.margin if asked.margin is not None else 0.0 if asked.front is None else MARGIN
    how |= {"patch": patch, "step": asked.step or patch, "margin": margin}
    store.write_json(folder / patches.FILE, patches.settings(asked.rate, how))


def _measured(front: Path, rate: int, *, bands: int | None) -> dict[str, int]:
    """How many samples a frame of the front sees and moves on by, from how many frames it makes of one and of two seconds."""
    session = foreign.open_onnx(front)
    port = session.get_inputs()[0]
    counts = []
    for n in (rate, 2 * rate):
        try:
            found = session.run(None, {port.name: np.zeros((*[1] * (len(port.shape) - 1), n), np.float32)})[0]
        except Exception as error:  # onnxruntime's own classes
            reason = " ".join(str(error).split())[:150]
            raise BackboneNotFound(f"the front does not take a wave: {reason}", "input (1, samples)", "name another front") from None
        counts.append(found.size // found.shape[-1])
    if counts[1] <= counts[0] or (bands is not None and found.shape[-1] != bands):
        given = f"the front makes {counts} frames of {found.shape[-1]} of one and of two seconds"
        raise BackboneNotFound(given, f"frames of {bands}, more of more sound", "name another front")
    hop = round(rate / (counts[1] - counts[0]))
    return {"window": max(hop, rate - (counts[0] - 1) * hop), "hop": hop}


def asked(options: Any, beside: Mapping[str, Any], file: Path) -> Asked:
    """Options of the command line, and below them what the JSON file beside the graph says under the same names.

    Raises:
        BadOption: A key that does not exist, or a value of the wrong kind.
        FileNotFound: The front is not there.
    """
    values = dict(vars(options))
    default = vars(type(options)())
    for key, value in beside.items():
        if key not in values:
            raise BadOption(
                f"{file.with_suffix('.json')} has no key {key!r}.{nearest(key, values)}", f"known: {', '.join(values)}", "correct it"
            )
        if values[key] == default[key]:
            values[key] = ",".join(map(str, value)) if isinstance(value, list) else value
    try:
        for key in ("mean", "std"):
            values[key] = tuple(float(n) for n in str(values[key]).split(",") if n.strip())
        values["features"] = tuple(name.strip() for name in str(values["features"]).split(",") if name.strip())
        values["front"] = file.parent / str(values["front"]) if values["front"] else None
        found = Asked(**{key: value for key, value in values.items() if key != "licence"})
    except (TypeError, ValueError) as error:
        raise BadOption(f"the options of {file} cannot be used: {error}", "numbers, with commas between", "correct them") from None
    if found.front is not None and not found.front.is_file():
        raise FileNotFound(f"no file {found.front}", "the front beside the model", "correct backbone.front")
    return found
