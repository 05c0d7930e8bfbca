"""An ONNX file as a frozen body of our own, run by ONNX Runtime on the CPU.

Shapes: B examples, C channels, H W pixels or cells, T patches of sound, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import foreign, store
from warmstart.engine.bodies import Config, Sealed, body

FILE, FRONT = "model.onnx", "front.onnx"
NHWC = "NHWC"

Floats = NDArray[np.float32]


@body("warmstart-onnx")
class OnnxBody(Sealed):
    """``shape`` is that of the graph's input with null for what is free, ``layout`` NCHW, NHWC or N (sound without channels), ``outputs``
    the names of the tensors that are the features: one as it is, several pooled and joined."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._shape = [None if n is None else int(n) for n in config.shape]
        self._outputs, self._layout = [str(name) for name in config.outputs], str(config.layout)
        self._folder: Path | None = None
        self._session: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxBody:
        """Itself: it never changes, and a session has no copy."""
        return self

    def read(self, folder: Path) -> None:
        self._session, self._folder = foreign.open_onnx(folder / FILE), folder
        known = {output.name for output in self._session.get_outputs()}
        if missing := sorted(set(self._outputs) - known):
            raise BackboneNotFound(f"{folder / FILE} has no output {missing[0]!r}", f"one of {', '.join(known)}", "correct config.json")

    def write(self, folder: Path) -> None:
        assert self._folder is not None  # noqa: S101 - it was read
        store.copy(self._folder / FILE, folder / FILE)

    def forward(
        self, pixel_values: Tensor | None = None, input_features: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor]:
        """A map (B, D, H, W), a sequence (B, T, D) or a vector (B, D) of images (B, C, H, W); of patches (B, T, ...) a sequence."""
        if pixel_values is not None:
            images = pixel_values.float().cpu().numpy()
            return (self._joined(np.transpose(images, (0, 2, 3, 1)) if self._layout == NHWC else images).to(pixel_values.device),)
        assert input_features is not None  # noqa: S101 - one of the two is given
        real = torch.ones(input_features.shape[:2]) if attention_mask is None else attention_mask
        found = self._joined(self._fitted(input_features[real.bool()].float().cpu().numpy()))  # of all real patches: (n, ...)
        each = found.flatten(2).transpose(1, 2) if found.ndim == 4 else found if found.ndim == 3 else found.unsqueeze(1)  # (n, k, D)
        out = torch.zeros(*real.shape, *each.shape[1:])
        out[real.bool().cpu()] = each
        return (out.flatten(1, 2).to(input_features.device),)  # (B, T * k, D)

    def _fitted(self, patches: Floats) -> Floats:
        """Patches (n, ...) in the shape that the graph takes, which may have a dimension of 1 for channels."""
        place = 1 if len(self._shape) > patches.ndim and self._layout != NHWC else patches.ndim
        return np.expand_dims(patches, place) if len(self._shape) > patches.ndim else patches

    def _joined(self, inputs: Floats) -> Tensor:
        """The features of inputs (n, ...), channels first: those of one output, or the means of several side by side."""
        outputs = [self._first_channels(output) for output in self._run(inputs)]
        if len(outputs) == 1:
            return outputs[0]
        means = [o if o.ndim == 2 else o.mean(1) if o.ndim == 3 else o.flatten(2).mean(2) for o in outputs]
        return torch.cat(means, dim=1)

    def _first_channels(self, output: Floats) -> Tensor:
        """(n, D), (n, T, D) or (n, D, H, W); a map of one cell is a vector."""
        found = torch.from_numpy(np.asarray(output, np.float32))
        if found.ndim == 1:
            return found.unsqueeze(1)
        if found.ndim == 4:
            found = found.permute(0, 3, 1, 2) if self._layout == NHWC else found
            return found.flatten(1) if found.shape[2:] == (1, 1) else found
        return found if found.ndim in (2, 3) else found.flatten(1)

    def _run(self, inputs: Floats) -> list[Floats]:
        """Every output for all inputs; a graph with a fixed batch gets as many as it takes, the last filled up with zeros."""
        name = self._session.get_inputs()[0].name
        size = self._shape[0] or len(inputs)
        found: list[list[Floats]] = []
        for start in range(0, len(inputs), size):
            some = inputs[start : start + size]
            filled = np.concatenate([some, np.zeros((size - len(some), *some.shape[1:]), np.float32)])
            found.append([output[: len(some)] for output in self._session.run(self._outputs, {name: np.ascontiguousarray(filled)})])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]
