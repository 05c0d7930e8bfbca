"""Bodies of our own, for what no architecture of transformers fits: a config.json whose ``model_type`` begins with ``warmstart-``.

To add one, write a module class here (or name its module in ``ELSEWHERE``) under ``@body("warmstart-name")``. It is made as
``Class(Config(values))``, keeps that as ``self.config``, takes its batch by keyword, and returns a tuple whose first entry is its final
state: a map (B, C, H, W), a sequence (B, T, D) or a vector (B, D). Its blocks lie in one ``nn.ModuleList``, so that the cut and the probe
see every one.
What turns raw inputs into its batch stands in the config too, under ``image``: ``{"size": [H, W], "channels": 3, "mean": [...], "std":
[...]}`` for pixels divided by 255.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from warmstart.core.errors import BackboneNotFound, BadOption, nearest
from warmstart.engine import store

PREFIX = "warmstart-"

Norm: TypeAlias = Literal["batch", "group", "none"]

ELSEWHERE = {
    "warmstart-keras": "warmstart.engine.keras_body",
    "warmstart-onnx": "warmstart.engine.onnx_body",
    "warmstart-resnet": "warmstart.engine.residual",
    "warmstart-soundnet": "warmstart.engine.sound_net",
    "warmstart-squeezenet": "warmstart.engine.squeezenet",
    "warmstart-vgg": "warmstart.engine.vgg",
    "warmstart-yamnet": "warmstart.engine.yamnet",
}
"""Bodies whose classes lie in modules of their own, imported when one is built."""

SEALED = ("warmstart-onnx",)
"""Those of them whose class is a ``Sealed``."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}

Built = TypeVar("Built", bound=nn.Module)

_KNOWN: dict[str, Callable[[Config], nn.Module]] = {}


class Config:
    """What is in a body's config.json; every key is an attribute too."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a key, or ``default`` where there is none."""
        return self._values.get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(self._values)


class Filed(nn.Module):
    """A body that reads and writes its weights itself, beside ``config.json``."""

    def read(self, folder: Path) -> None:
        """Take the weights in ``folder``."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Write the weights to ``folder``."""
        raise NotImplementedError


class Sealed(Filed):
    """A body whose weights are no tensors of torch: it is never trained, converted or cut."""


def body(model_type: str) -> Callable[[type[Built]], type[Built]]:
    """Class decorator: bodies with this ``model_type`` are built by this class."""

    def register(kind: type[Built]) -> type[Built]:
        _KNOWN[model_type] = kind
        return kind

    return register


def build(config: Mapping[str, Any]) -> nn.Module:
    """A body with fresh weights (from torch's global generator) as ``config`` describes it.

    Raises:
        BackboneNotFound: No body has this ``model_type``, or a value is missing or wrong.
    """
    name = str(config.get("model_type"))
    if name in ELSEWHERE:
        importlib.import_module(ELSEWHERE[name])
    if name not in _KNOWN:
        known = sorted({*_KNOWN, *ELSEWHERE})
        raise BackboneNotFound(
            f"no body of model_type {name!r}.{nearest(name, known)}",
            f"known: {', '.join(known)}",
            "update warmstart, or correct config.json",
        )
    try:
        return _KNOWN[name](Config(config))
    except (AttributeError, TypeError, ValueError, BadOption) as error:
        raise BackboneNotFound(
            f"the config of a {name} body does not describe one: {error}", "the config.json that was saved", "save the body again"
        ) from None


def is_own(model: nn.Module) -> bool:
    """Whether a body was built here."""
    return isinstance(getattr(model, "config", None), Config)


def require_trainable(folder: Path) -> None:
    """Raise where the body in ``folder`` can only be used frozen.

    Raises:
        BackboneNotFound: It can.
    """
    config = store.read_config(folder)
    if str(config.get("model_type")) in SEALED:
        raise BackboneNotFound(
            f"the body in {folder} can only be used frozen: its weights are not torch's", "a body of torch", "use it with: warmstart adapt"
        )


def save(model: nn.Module, folder: Path) -> None:
    """Write config.json and model.safetensors, as ``store.load_body`` opens them."""
    config = cast(Config, model.config)
    if isinstance(model, Filed):
        model.write(folder)
    else:
        store.write_tensors(folder / "model.safetensors", {name: value.cpu() for name, value in model.state_dict().items()})
    store.write_json(folder / "config.json", config.to_dict())


def load(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """The body that was saved in ``folder``, in float32 and in evaluation mode.

    Raises:
        BackboneNotFound: Config and weights do not belong together.
    """
    model = build(config)
    if isinstance(model, Filed):
        model.read(folder)
        return model.eval()
    try:
        model.load_state_dict(store.read_tensors(folder / "model.safetensors"))
    except RuntimeError as error:
        raise BackboneNotFound(
            f"the weights in {folder} do not fit its config.json: {' '.join(str(error).split())[:200]}",
            "config.json and model.safetensors from the same run",
            "save the body again",
        ) from None
    return model.to(torch.float32).eval()


@body("warmstart-mlp")
class Mlp(nn.Module):
    """Dense layers, from the pixels to a code: ``sizes`` are [inputs, hidden..., code], ``activation`` follows every layer.

    ``linear_code`` leaves the last layer without one, as a deep autoencoder's code has it (Hinton & Salakhutdinov 2006).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = [int(n) for n in config.sizes]
        if len(sizes) < 2:
            raise ValueError("sizes must hold the number of inputs and of each layer's outputs")
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            Layer(a, b, "" if i == last and config.get("linear_code", False) else config.activation)
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """The code (B, D) of images (B, C, H, W) or of flat inputs (B, F)."""
        x = pixel_values.flatten(1)  # (B, F)
        for layer in self.layers:
            x = layer(x)
        return (x,)


class Layer(nn.Module):
    """A linear layer and its activation (``""``: none)."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.activation = _activation(activation) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return cast(Tensor, self.activation(self.linear(x)))


@body("warmstart-convnet")
class ConvNet(nn.Module):
    """Stages of 3x3 convolution, norm and ReLU, each ended by 2x2 max pooling: ``widths`` are the channels of each stage.

    Options in the config: ``channels`` of the input (3), ``convs`` in each stage (1), ``norm`` (batch, group or none) and ``pool``, a
    truth value for each stage (all).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [int(n) for n in config.widths]
        pools = list(config.get("pool") or [True] * len(widths))
        channels = [int(config.get("channels", 3)), *widths]
        norm, convs = config.get("norm", "batch"), int(config.get("convs", 1))
        self.stages = nn.ModuleList(
            Stage(a, b, convs=convs, norm=norm, pool=pool) for a, b, pool in zip(channels[:-1], channels[1:], pools, strict=True)
        )

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """The last stage's map (B, C, H, W) of images (B, channels, H, W)."""
        x = pixel_values
        for stage in self.stages:
            x = stage(x)
        return (x,)


class Stage(nn.Module):
    """``convs`` times convolution, norm and ReLU, then pooling; convolutions have no bias where a norm follows."""

    def __init__(self, inputs: int, outputs: int, *, convs: int, norm: Norm, pool: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            layers.append(nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1, bias=norm == "none"))
            if norm != "none":
                layers.append(normalisation(norm, outputs))
            layers.append(nn.ReLU())
        if pool:
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), with H and W halved by pooling."""
        return cast(Tensor, self.layers(x))


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """A layer that normalises maps with so many channels."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0), channels) if norm == "group" else nn.Identity()


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise BadOption(f"activation = {name!r}.{nearest(name, ACTIVATIONS)}", f"known: {', '.join(ACTIVATIONS)}", "correct the value")
    return ACTIVATIONS[name]()
