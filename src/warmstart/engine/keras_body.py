"""A Keras model on its torch backend as a body of our own: its graph cut into blocks where one tensor alone leads on.

Shapes: B images, C channels, H W pixels or cells, D features. Keras has channels last, the body first.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import foreign, store
from warmstart.engine.bodies import Config, Filed, body

MOST_BLOCKS = 16
AFTER_FEATURES = ("Dense", "Dropout", "Activation", "Softmax")
"""Layers at the end that make classes of features; what is before the first of them is the body."""


@body("warmstart-keras")
class KerasBody(Filed):
    """``architecture`` is the JSON of a Keras model with one image as its input; ``bgr`` says that it takes blue first.

    It computes in float32 only: Keras casts what its layers get.
    """

    float32_only = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._bgr = bool(config.get("bgr", False))
        model = foreign.keras().models.model_from_json(json.dumps(config.architecture))
        self.blocks = nn.ModuleList(Block(part) for part in parts(model))
        self.register_state_dict_post_hook(_by_place)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_by_name)  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """A map (B, D, H, W), or a vector (B, D), of images (B, C, H, W)."""
        x = pixel_values.flip(1) if self._bgr else pixel_values
        for block in self.blocks:
            x = block(x)
        return (x,)

    def read(self, folder: Path) -> None:
        tensors = store.read_tensors(folder / "model.safetensors")
        try:
            for name, variable in self._weights():
                variable.assign(tensors[name])
        except (KeyError, ValueError) as error:
            raise BackboneNotFound(
                f"the weights in {folder} do not fit its config.json: {error}", "both from the same run", "save the body again"
            ) from None

    def write(self, folder: Path) -> None:
        store.write_tensors(folder / "model.safetensors", {name: variable.value.detach().cpu() for name, variable in self._weights()})

    def _weights(self) -> Iterator[tuple[str, Any]]:
        """By their place: names of Keras's own may differ from one process to the next."""
        for i, block in enumerate(self.blocks):
            part: Any = block.part
            for j, variable in enumerate(part.weights):
                yield f"blocks.{i}.{j}", variable

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KerasBody:
        """To another device, also as a part of a module; another number type is left out."""

        def placed(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(placed, recurse)  # type: ignore[no-untyped-call]
        return self


def _places(module: nn.Module, prefix: str) -> dict[str, str]:
    """What a state dict calls every variable by its place, random states included, and Keras's name for it in this process."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    blocks: Any = module.blocks
    return {
        f"{prefix}blocks.{i}.{j}": prefix + names[id(variable.value)]
        for i, block in enumerate(blocks)
        for j, variable in enumerate(block.part.variables)
    }


def _by_place(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """A hook: Keras counts its seed generators, so their names differ from one process to the next."""
    for place, name in _places(module, prefix).items():
        state[place] = state.pop(name)


def _by_name(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
    """The hook that undoes ``_by_place``."""
    for place, name in _places(module, prefix).items():
        if place in state:
            state[name] = state.pop(place)


class Block(nn.Module):
    """One part of the graph."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W) or a vector to the next."""
        found: Tensor = self.part(x.permute(0, 2, 3, 1) if x.ndim == 4 else x, training=self.training)
        return found.permute(0, 3, 1, 2) if found.ndim == 4 else found


def parts(model: Any) -> list[Any]:
    """The model in order, as models from one tensor that alone leads on to the next such, without what makes classes of features."""
    keras = foreign.keras()
    tensors = [model.inputs[0], *_alone(model)]
    if len(tensors) > MOST_BLOCKS + 1:
        tensors = [tensors[round(i * (len(tensors) - 1) / MOST_BLOCKS)] for i in range(MOST_BLOCKS + 1)]
    return [keras.Model(a, b) for a, b in itertools.pairwise(tensors)]


def _alone(model: Any) -> Iterator[Any]:
    """Tensors through which every path leads, behind the layers that compute something."""
    operations = [operation for operation in model.operations if type(operation).__name__ != "InputLayer"]
    operations = operations[: _features(operations)]
    readers: dict[int, int] = {}
    for operation in operations:
        for tensor in _inputs(operation):
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    waiting = {id(model.inputs[0]): readers.get(id(model.inputs[0]), 0)}
    for i, operation in enumerate(operations):
        for tensor in _inputs(operation):
            waiting[id(tensor)] -= 1
            if not waiting[id(tensor)]:
                del waiting[id(tensor)]
        output = operation.output
        waiting[id(output)] = readers.get(id(output), 0)
        last = i == len(operations) - 1
        if last or (len(waiting) == 1 and _closes(operations, i)):
            yield output


def _features(operations: list[Any]) -> int:
    """How many operations make the features: all, but for dense layers at the end and what stands between and around them."""
    end = len(operations)
    while end > 1 and type(operations[end - 1]).__name__ in AFTER_FEATURES:
        end -= 1
    return end if any(type(operation).__name__ == "Dense" for operation in operations[end:]) else len(operations)


def _closes(operations: list[Any], i: int) -> bool:
    """Whether a block ends here: what comes next begins a new layer with weights, so that norm and activation stay with their layer."""
    following = type(operations[i + 1]).__name__
    return "Conv" in following or "Pool" in following or following in ("Dense", "Functional", "ZeroPadding2D")


def _inputs(operation: Any) -> list[Any]:
    found = operation.input
    return list(found) if isinstance(found, list | tuple) else [found]


def check(model: Any, name: str) -> tuple[int | None, int | None, int]:
    """Height, width (None: free) and channels of the one image that a model takes.

    Raises:
        BackboneNotFound: It takes something else.
    """
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        given = f"{name} takes {shapes or 'inputs of unknown shape'}"
        raise BackboneNotFound(given, "one image (batch, height, width, 1 or 3 channels)", "save a model with such an input")
    return shapes[0][1], shapes[0][2], int(shapes[0][3])
