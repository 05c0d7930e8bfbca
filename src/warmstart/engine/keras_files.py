"""The folder of a body made from a Keras model: an architecture of ``keras.applications`` by name, or a ``.keras`` file."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart.core.errors import BackboneNotFound, BadOption, FileNotFound, nearest
from warmstart.core.words import shortened
from warmstart.engine import bodies, foreign, preprocessing

CROPPED_FROM = 100
"""Smaller inputs are not cut out of the middle of an image, but the whole image is resized."""
SIZE = 224

CAFFE = {"do_rescale": False, "image_mean": [123.68, 116.779, 103.939], "image_std": [1.0] * 3}
RAW = {"do_rescale": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
PIXELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ResNet50V2", preprocessing.PIXELS["signed"]),
    ("ResNet101V2", preprocessing.PIXELS["signed"]),
    ("ResNet152V2", preprocessing.PIXELS["signed"]),
    ("VGG", CAFFE),
    ("ResNet", CAFFE),
    ("DenseNet", preprocessing.PIXELS["imagenet"]),
    ("EfficientNet", RAW),
    ("MobileNetV3", RAW),
    ("ConvNeXt", RAW),
    ("", preprocessing.PIXELS["signed"]),
)
"""What the weights of ``keras.applications`` take, by how a name begins; some scale pixels themselves. Caffe's take blue first."""


@dataclass(frozen=True)
class Asked:
    """``weights``: none (random), imagenet (downloaded), or a file that Keras saved; pixels are as in ``preprocessing.write_cropped``."""

    weights: str = "none"
    size: int | None = None
    crop: bool = True
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bgr: bool = False
    seed: int = 0


def write_application(name: str, asked: Asked, folder: Path) -> None:
    """Write the body of an architecture of ``keras.applications``, without its classes.

    Raises:
        BackboneNotFound: No such architecture, or its weights are not to be had.
    """
    keras = foreign.keras()
    known = [key for key, value in vars(keras.applications).items() if callable(value) and key[:1].isupper()]
    if name not in known:
        raise BackboneNotFound(f"keras.applications has no {name!r}.{nearest(name, known)}", f"one of {', '.join(known)}", "correct it")
    make = getattr(keras.applications, name)
    keras.utils.set_random_seed(asked.seed)
    shape = {} if asked.size is None else {"input_shape": (asked.size, asked.size, 3)}
    try:
        with redirect_stdout(sys.stderr):  # Keras tells there of what it downloads
            if asked.weights in ("none", "imagenet"):
                model = make(weights=None if asked.weights == "none" else "imagenet", include_top=False, **(shape or _usual(make)))
            else:
                model = _weighed(make, Path(asked.weights), shape or _usual(make))
    except BackboneNotFound:
        raise
    except Exception as error:  # Keras raises what it likes, also where it cannot reach the network
        reason = shortened(str(error))
        do = "choose another size, or give a file: --set backbone.weights=FILE.weights.h5"
        if asked.weights == "imagenet" and "URL fetch failure" in reason:
            do = "connect to the network, or give a file: --set backbone.weights=FILE.weights.h5"
        raise BackboneNotFound(f"{name} with weights {asked.weights}: {reason}", "a body that Keras can make", do) from None
    pixels = next(value for begins, value in PIXELS if name.startswith(begins))
    _write(model, pixels, name, asked, folder, bgr=pixels is CAFFE)


def write_file(file: Path, asked: Asked, folder: Path) -> None:
    """Write the body in a ``.keras`` file.

    Raises:
        BackboneNotFound: It cannot be opened safely, or takes no image.
        BadOption: The numbers do not fit its channels.
    """
    model = foreign.load_keras(file)
    channels = _keras_body().check(model, str(file))[2]
    mean, std = asked.mean or (0.0,) * channels, asked.std or (1.0,) * channels
    if not (len(mean) == len(std) == channels) or min(std) == 0 or asked.scale <= 0:
        given = f"mean {list(mean)}, std {list(std)} and scale {asked.scale} for {channels} channels of {file}"
        raise BadOption(given, "a number for each channel, std and scale not 0", "correct them")
    pixels = {"do_rescale": True, "rescale_factor": asked.scale, "image_mean": list(mean), "image_std": list(std)}
    keras: Any = foreign.keras()
    # Made anew: layers of a sequential model, and of one that was called since, also belong to graphs that are no longer its own.
    plain = keras.models.clone_model(keras.Model(model.inputs, model.outputs))
    plain.set_weights(model.get_weights())
    _write(plain, pixels, str(file), asked, folder, bgr=asked.bgr)


def _write(model: Any, pixels: dict[str, Any], name: str, asked: Asked, folder: Path, *, bgr: bool) -> None:
    height, width, channels = _keras_body().check(model, name)
    height, width = height or asked.size or SIZE, width or asked.size or SIZE
    config = {"model_type": "warmstart-keras", "architecture": json.loads(model.to_json()), "bgr": bgr, "num_channels": channels}
    try:
        body: Any = bodies.build(config)
    except BackboneNotFound:
        raise
    except Exception as error:  # layers whose graph cannot be followed
        reason = shortened(str(error))
        raise BackboneNotFound(f"{name} cannot be taken apart: {reason}", "a functional or sequential model", "save it as one") from None
    for block, part in zip(body.blocks, _keras_body().parts(model), strict=True):
        for variable, given in zip(block.part.weights, part.weights, strict=True):
            variable.assign(given.value)
    if asked.crop and height == width >= CROPPED_FROM and channels == 3:
        preprocessing.write_cropped(folder, size=height, pixels=pixels)
    else:
        unit = 255 * pixels.get("rescale_factor", 1.0)  # our own form takes pixels divided by 255
        mean, std = ([value / unit for value in pixels[key]] for key in ("image_mean", "image_std"))
        config["image"] = {"size": [height, width], "channels": channels, "mean": mean, "std": std}
        body.config = bodies.Config(config)
    bodies.save(body, folder)


def _usual(make: Any) -> dict[str, Any]:
    """The size that an architecture is made for."""
    height, width = make(weights=None).input_shape[1:3]
    return {"input_shape": (height or SIZE, width or SIZE, 3)}


def _weighed(make: Any, file: Path, shape: dict[str, Any]) -> Any:
    """The model with weights from a file that was saved with its classes or without."""
    if not file.is_file():
        raise FileNotFound(f"no file {file}", "weights that Keras saved (.weights.h5, .h5 or .keras)", "correct backbone.weights")
    if file.suffix == ".keras":
        return foreign.load_keras(file)
    return foreign.load_keras_weights(file, [make(weights=None, include_top=top, **shape) for top in (False, True)])


def _keras_body() -> Any:
    """Imported late: it registers a body that needs nothing of Keras until one is built."""
    from warmstart.engine import keras_body

    return keras_body
