"""Architectures of keras.applications with fresh weights: narrower by a factor, for images of any size, without their classes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from warmstart.core.errors import BadOption, nearest
from warmstart.engine import foreign

PREFIX = "keras:"
"""``keras:InceptionV3`` is a family of networks for images."""
MODEL_TYPE = "warmstart-keras"

FILTERS = 8
"""Numbers of filters are multiples of this."""
MOMENTUM = 0.9
"""Of running statistics. Keras's 0.99 and 0.999 lag behind a run of a few hundred steps; this is torch's default."""
OF_PIXELS = ("Rescaling", "Normalization")
"""Layers that make numbers of pixels: a body from scratch is fed normalised images."""


def known() -> list[str]:
    """Names of the architectures.

    Raises:
        MissingLibrary: Keras is not installed.
    """
    return [name for name, value in vars(foreign.keras().applications).items() if callable(value) and name[:1].isupper()]


def least(name: str) -> int:
    """Pixels that an image must have on each side.

    Raises:
        BadOption: No such architecture, or it cannot be built on torch.
        MissingLibrary: Keras is not installed.
    """
    try:
        _make(name, (1, 1, 3), {})
    except ValueError as error:
        found = re.search(r"at least (\d+)x", str(error))
        if found is None:
            raise _refused(name, error) from None
        return int(found[1])
    return 1


def form(name: str, *, shape: tuple[int, int, int], share: float, values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config`` makes a body of: the architecture with ``share`` of its filters for images (C, H, W).

    ``values`` are arguments of the function of ``keras.applications``.
    """
    return {"model_type": MODEL_TYPE, "application": name, "shape": list(shape), "share": share, "values": dict(values)}


def config(form: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a body of this form; the seeds of its weights and its dropout come from torch's global generator.

    Raises:
        BadOption: It cannot be made like this.
        MissingLibrary: Keras is not installed.
    """
    channels, height, width = form["shape"]
    architecture = json.loads(_architecture(form["application"], (height, width, channels), form["share"], json.dumps(form["values"])))
    for part in _parts(architecture):
        if "seed" in part and part["seed"] is None:
            part["seed"] = int(torch.randint(2**31 - 1, (1,)))
    return {"model_type": MODEL_TYPE, "architecture": architecture, "bgr": False, "num_channels": channels}


@functools.cache
def _architecture(name: str, shape: tuple[int, int, int], share: float, values: str) -> str:
    """The JSON of the narrower model, without seeds: making it takes seconds, and a dial asks for it several times."""
    try:
        found = json.loads(_make(name, shape, json.loads(values)).to_json())
        for part in _parts(found):
            _change(part, share)
        made: str = foreign.keras().models.model_from_json(json.dumps(found)).to_json()
    except (TypeError, ValueError, RuntimeError) as error:  # what layers raise whose numbers of filters do not fit
        raise _refused(name, error) from None
    return made


def _make(name: str, shape: tuple[int, int, int], values: Mapping[str, Any]) -> Any:
    """The architecture as Keras has it, for images (H, W, C)."""
    names = known()
    if name not in names:
        raise BadOption(f"keras.applications has no {name!r}.{nearest(name, names)}", f"one of {', '.join(names)}", "correct it")
    return getattr(foreign.keras().applications, name)(weights=None, include_top=False, input_shape=shape, **values)


def _refused(name: str, error: Exception) -> BadOption:
    reason = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())[:200]
    return BadOption(f"{PREFIX}{name}: {reason}", "a network that Keras can make", "change objective.width, pixels or config")


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every layer, and everything that has a seed, in the JSON of a model; always in the same order."""
    if isinstance(value, dict):
        yield value
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for one in inside:
        yield from _parts(one)


def _change(part: dict[str, Any], share: float) -> None:
    """A layer as it is wanted, in place; the shapes that Keras wrote down for it are forgotten."""
    own, kind = part.get("config"), part.get("class_name")
    if not isinstance(own, dict):
        return
    part.pop("build_config", None)
    if kind in OF_PIXELS:
        part["class_name"], part["config"] = "Identity", {"name": own["name"]}
    if kind == "BatchNormalization":
        own["momentum"] = MOMENTUM
    for key in ("filters", "units", "projection_dim"):
        if isinstance(own.get(key), int):
            narrower = _times(own[key], share)
            if own.get("groups", 1) == own[key]:
                own["groups"] = narrower
            own[key] = narrower
    if kind == "Reshape" and len(own["target_shape"]) == 3:  # of squeeze and excitation: 1 x 1 x filters
        own["target_shape"] = [*own["target_shape"][:2], _times(own["target_shape"][2], share)]


def _times(count: int, share: float) -> int:
    return count if share == 1 else max(FILTERS, round(count * share / FILTERS) * FILTERS)
