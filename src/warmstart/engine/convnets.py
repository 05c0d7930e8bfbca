"""Networks for images by family and size, from scratch: our own, any image classifier of transformers by its model type, and Keras's.

A *form* is plain JSON that one is built from: ``{"model_type": ..., ...}``, the values of its configuration. Families of transformers are
made for images of 224 pixels and shrink them 32 times; a form for small images has a finer stem where the configuration lets it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import BadOption, nearest
from warmstart.core.words import shortened
from warmstart.engine import bodies, keras_families, network, preprocessing, store, vgg

OWN = ("convnet", "small_resnet", "vgg")

WIDTH = {
    "convnet": {"tiny": 32, "small": 64, "base": 96},
    "small_resnet": {"tiny": 16, "small": 32, "base": 64},
    "vgg": {"tiny": 16, "small": 32, "base": 64},
}
DEPTH = {
    "convnet": {"tiny": 1, "small": 2, "base": 2},
    "small_resnet": {"tiny": 1, "small": 2, "base": 3},
    "vgg": {"tiny": 11, "small": 13, "base": 16},
}
SHARE = {"tiny": (0.25, 0.34), "small": (0.5, 0.5), "base": (1.0, 1.0)}
"""Widths and depths of a family of transformers by size, as shares of those of its default configuration; Keras's have the widths alone."""
DENSE = 8
"""Features of VGG's dense layers for each channel of its first stage: the paper's 64 suit a thousand classes."""

LEAST_MAP = 2
"""Pixels that the last map should have on each side."""
HEAD_WIDTH = 64
"""Features of an attention head."""


@dataclass(frozen=True)
class Asked:
    """What a network is to be. ``width`` and ``depth`` (None: by ``size``) are the channels of the first stage and the convolutions or
    blocks of each (of VGG all layers); for a family of transformers, percentages of its default configuration, and so is the width of one
    of Keras. ``values`` are put into the configuration, or are arguments of the function of keras.applications."""

    family: str
    size: str
    shape: tuple[int, int, int]
    width: int | None = None
    depth: int | None = None
    norm: bodies.Norm = "batch"
    values: str | None = None


def form(asked: Asked) -> dict[str, Any]:
    """The form of a network.

    Raises:
        BadOption: No such family, or it cannot be made like this.
    """
    values = _given(asked.values)
    if asked.family in OWN:
        return _own(asked) | values
    if asked.family.startswith(keras_families.PREFIX):
        return _of_keras(asked, values)
    known = _families()
    if asked.family not in known:
        raise BadOption(
            f"family = {asked.family!r}.{nearest(asked.family, [*OWN, *known])}",
            f"one of {', '.join((*OWN, *known))}, or keras:NAME",
            "correct the value",
        )
    return {"model_type": asked.family, **_fitted(asked, values)}


def build(form: Mapping[str, Any]) -> nn.Module:
    """The body of a form, with fresh weights from torch's global generator.

    Raises:
        BadOption: The configuration does not make a body.
    """
    if "application" in form:
        return bodies.build(keras_families.config(form))
    if str(form["model_type"]).startswith(bodies.PREFIX):
        return bodies.build(form)
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    store.quiet_transformers()
    values = {name: value for name, value in form.items() if name != "model_type"}
    try:
        body: nn.Module = AutoModel.from_config(CONFIG_MAPPING[form["model_type"]](**values))
    except Exception as error:  # a configuration class raises what its author liked
        reason = shortened(str(error))
        raise BadOption(
            f"{form['model_type']} with {json.dumps(values)}: {reason}",
            "values that make a body",
            "change objective.config, width or depth",
        ) from None
    return body


def least(family: str) -> int:
    """Pixels that images must have on each side.

    Raises:
        BadOption: No such architecture of Keras.
        MissingLibrary: It is one of Keras, which is not installed.
    """
    return keras_families.least(family.removeprefix(keras_families.PREFIX)) if family.startswith(keras_families.PREFIX) else 1


def pooled(body: nn.Module, pixel_values: Tensor) -> Tensor:
    """The mean over the last map (or over the tokens) of images (B, C, H, W): (B, D) in float32, as ``adapt`` pools it."""
    return network.masked_mean(network.last_state(body(pixel_values=pixel_values)), None)


def last_map(form: Mapping[str, Any], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of a body's last state for one image: (D, H, W) or (T, D). Nothing is computed."""
    with torch.device("meta"), torch.no_grad():
        state = network.last_state(build(form).eval()(pixel_values=torch.zeros(1, *shape)))
    return tuple(state.shape[1:])


def features(body: nn.Module, shape: tuple[int, int, int], device: torch.device) -> int:
    """D of ``pooled``."""
    training = body.training
    with torch.no_grad():
        found = pooled(body.eval(), torch.zeros(1, *shape, device=device)).shape[1]
    body.train(training)
    return int(found)


def save(body: nn.Module, folder: Path, *, mean: list[float], std: list[float], shape: tuple[int, int, int]) -> None:
    """Write a body as ``store.load_body`` opens it, with what is done to images before they reach it."""
    channels, height, width = shape
    if bodies.is_own(body):
        image = {"size": [height, width], "channels": channels, "mean": mean, "std": std}
        body.config = bodies.Config({**body.config.to_dict(), "image": image})  # type: ignore[union-attr, operator, assignment]
        store.save_transformers(body, folder)
        return
    store.save_transformers(body, folder)
    store.write_json(folder / preprocessing.FILE, preprocessing.plain(shape, mean=mean, std=std))


def _given(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadOption(f"config = {text!r}", 'JSON such as {"depths": [2, 2, 2]}', "correct the value")
    return found


def _own(asked: Asked) -> dict[str, Any]:
    channels, height, width = asked.shape
    first = asked.width or WIDTH[asked.family][asked.size]
    depth = asked.depth or DEPTH[asked.family][asked.size]
    halvings = max(1, min(5, int(math.log2(max(2, min(height, width) / 4)) + 0.5)))  # to a last map of about 4 x 4
    if asked.family == "convnet":
        widths = [first << i for i in range(halvings)]
        return {"model_type": "warmstart-convnet", "widths": widths, "convs": depth, "channels": channels, "norm": asked.norm}
    if asked.family == "vgg":
        return _vgg(asked, first, depth)
    widths = [first << i for i in range(max(1, min(4, halvings)))]
    return {"model_type": "warmstart-resnet", "widths": widths, "depth": depth, "channels": channels, "norm": asked.norm}


def _vgg(asked: Asked, first: int, depth: int) -> dict[str, Any]:
    """As many stages of the VGG of this depth as leave a map of ``LEAST_MAP``, which the dense layers see whole."""
    if depth not in vgg.CONVS:
        raise BadOption(f"depth = {depth} of vgg", f"one of {', '.join(map(str, vgg.CONVS))}", "correct it")
    channels, *sides = asked.shape
    convs = vgg.CONVS[depth][: max(1, int(math.log2(max(LEAST_MAP, min(sides)) / LEAST_MAP)))]
    return {
        "model_type": "warmstart-vgg",
        "widths": [first * min(8, 1 << i) for i in range(len(convs))],
        "convs": list(convs),
        "dense": DENSE * first,
        "grid": min(vgg.GRID, max(1, min(sides) >> len(convs))),
        "channels": channels,
        "norm": asked.norm,
    }


def _of_keras(asked: Asked, values: Mapping[str, Any]) -> dict[str, Any]:
    if asked.depth is not None:
        raise BadOption(f"depth = {asked.depth} of {asked.family}", "the depth that its name means", "leave it out, or take another name")
    share = asked.width / 100 if asked.width else SHARE[asked.size][0]
    name = asked.family.removeprefix(keras_families.PREFIX)
    return keras_families.form(name, shape=asked.shape, share=share, values=values)


def _families() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


def _fitted(asked: Asked, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration of the size and for the images that are asked for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    default = CONFIG_MAPPING[asked.family]().to_dict()
    wide, deep = SHARE[asked.size]
    wide, deep = (asked.width / 100 if asked.width else wide), (asked.depth / 100 if asked.depth else deep)
    values = _scaled(default, wide, deep)
    channels, height, _ = asked.shape
    values["num_channels"] = channels
    if "image_size" in default:
        values["image_size"] = height
    if isinstance(default.get("patch_size"), int) and "patch_sizes" not in default:
        values["patch_size"] = _patch(height, hierarchical="depths" in default, usual=default["patch_size"])
    values |= given
    for change in (_finer_strides, _finer_output, _fewer_stages):
        while _too_small(asked, values) and (changed := change(default, values)) is not None:
            if {**changed, **given} == values:
                break
            values = {**changed, **given}
    build({"model_type": asked.family, **values})
    return values


def _too_small(asked: Asked, values: Mapping[str, Any]) -> bool:
    try:
        shape = last_map({"model_type": asked.family, **values}, asked.shape)
    except (BadOption, RuntimeError, ValueError, NotImplementedError):  # its kernels do not fit into the image, or meta tensors into it
        return True
    return len(shape) == 3 and min(shape[1:]) < LEAST_MAP


Change = Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any] | None]


def _finer_strides(default: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    """The first stride that shrinks the map, halved."""
    strides = values.get("strides", default.get("strides"))
    if not isinstance(strides, list) or max(strides) < 2:
        return None
    place = next(i for i, stride in enumerate(strides) if stride > 1)
    return {**values, "strides": [s // 2 if i == place else s for i, s in enumerate(strides)]}


def _finer_output(default: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    stride = values.get("output_stride", default.get("output_stride"))
    return {**values, "output_stride": stride // 2} if isinstance(stride, int) and stride > 8 else None


def _fewer_stages(default: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    """Without the last stage."""
    depths = values.get("depths", default.get("depths"))
    if not isinstance(depths, list) or len(depths) < 2 or "strides" in default:
        return None
    lists = {name: value for name, value in {**default, **values}.items() if isinstance(value, list) and len(value) == len(depths)}
    lists = {name: value for name, value in lists.items() if all(isinstance(v, int | float) for v in value)}
    return {
        **values,
        **{name: value[:-1] for name, value in lists.items()},
        **({"num_stages": len(depths) - 1} if "num_stages" in default else {}),
    }


def _scaled(default: Mapping[str, Any], wide: float, deep: float) -> dict[str, Any]:
    """The width and depth of a configuration, by what configurations of transformers call them."""
    values: dict[str, Any] = {}
    for name in ("hidden_sizes", "embedding_size"):
        if isinstance(default.get(name), list | int):
            values[name] = _times(default[name], wide, 8)
    if isinstance(default.get("depths"), list):
        values["depths"] = _times(default["depths"], deep, 1)
    if "layer_type" in default and default.get("model_type") == "resnet" and wide < 1:
        values |= {"layer_type": "basic", "hidden_sizes": _times([64, 128, 256, 512], wide, 8)}  # ResNet-18 and -34 (He et al. 2016)
    if isinstance(default.get("embed_dim"), int):
        heads = default.get("num_heads")
        values["embed_dim"] = _times(default["embed_dim"], wide, 8 * (heads[0] if isinstance(heads, list) else 1))
    for name in ("depth_multiplier", "width_multiplier"):
        if name in default:
            values[name] = default[name] * wide
    if "width_coefficient" in default:  # EfficientNet-B0 is 1 and 1 (Tan & Le 2019)
        values |= {"width_coefficient": wide, "depth_coefficient": deep, "hidden_dim": _times(1280, wide, 8)}
    if isinstance(default.get("hidden_size"), int) and isinstance(default.get("num_attention_heads"), int) and "depths" not in default:
        heads = max(1, round(default["hidden_size"] * wide / HEAD_WIDTH))
        values |= {
            "hidden_size": heads * HEAD_WIDTH,
            "num_attention_heads": heads,
            "num_hidden_layers": _times(default["num_hidden_layers"], deep, 1),
        }
        if "intermediate_size" in default:
            values["intermediate_size"] = 4 * heads * HEAD_WIDTH
    return values


def _times(value: Any, factor: float, step: int) -> Any:
    """``value`` (or each of a list) times ``factor``, rounded to a multiple of ``step`` and at least that."""
    if isinstance(value, list):
        return [_times(v, factor, step) for v in value]
    return max(step, round(value * factor / step) * step)


def _patch(side: int, *, hierarchical: bool, usual: int) -> int:
    """Pixels of a patch: 8 x 8 patches of a small image, or 16 x 16 where stages shrink them further; no more than usual."""
    wanted = min(usual, side / (16 if hierarchical else 8))
    divisors = [n for n in range(1, side + 1) if side % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n / max(wanted, 1))))
