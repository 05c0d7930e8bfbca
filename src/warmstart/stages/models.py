"""models: the pre-trained bodies that can be used here, read from their files without loading any."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart.core import card, registry

HEADER = ("name", "parameters", "size", "licence", "architecture", "examples/s", "where")

LONGEST_HEADER = 100_000_000
"""The safetensors format allows no longer header; anything beyond is a damaged file."""


@dataclass(frozen=True)
class Known:
    """One body. ``folder`` is None where it is offered but not installed; what its files do not tell is None as well.

    ``examples_per_second`` was measured on this machine by an earlier run, with ``device`` and ``precision`` as they were then.
    """

    name: str
    source: str
    folder: str | None
    parameters: int | None = None
    bytes_on_disk: int | None = None
    licence: str | None = None
    architecture: str | None = None
    examples_per_second: float | None = None
    device: str | None = None
    precision: str | None = None

    def cells(self) -> tuple[str, ...]:
        """The body as one row below ``HEADER``."""
        if self.folder is None:
            return (self.name, "-", "-", "-", "-", "-", "not installed; see: warmstart doctor")
        speed = "-" if self.examples_per_second is None else f"{self.examples_per_second:.0f} ({self.device}, {self.precision})"
        parameters = "-" if self.parameters is None else f"{self.parameters / 1e6:.1f} M"
        size = "-" if self.bytes_on_disk is None else f"{self.bytes_on_disk / 1e6:.0f} MB"
        return (self.name, parameters, size, self.licence or "-", self.architecture or "-", speed, self.folder)


def run() -> list[Known]:
    """Every body that the backbone sources know here, without any network."""
    speeds = _speeds()
    found = []
    for source in registry.parts("backbones"):
        for name, folder in registry.create("backbones", source).known().items():
            found.append(Known(name, source, None) if folder is None else _read(name, source, folder, speeds))
    return found


def count_parameters(path: Path) -> int:
    """Floating-point numbers in a safetensors file, from its header alone (8 bytes of length, then JSON).

    Raises:
        ValueError: The file is not safetensors.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"{path} is not a safetensors file")
        header = json.loads(file.read(length))
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    return sum(math.prod(tensor["shape"]) for tensor in tensors if tensor["dtype"].startswith(("F", "BF")))


def _read(name: str, source: str, folder: Path, speeds: Mapping[str, Mapping[str, Any]]) -> Known:
    weights = sorted(folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = (config.get("architectures") or [config.get("model_type")])[0]
        parameters = sum(map(count_parameters, weights))
    except (OSError, ValueError, KeyError, AttributeError):  # listed all the same: using it will say what is wrong
        architecture = parameters = None
    speed = speeds.get(str(folder), {})
    return Known(
        name=name,
        source=source,
        folder=str(folder),
        parameters=parameters,
        bytes_on_disk=sum(path.stat().st_size for path in weights),
        licence=card.licence(folder),
        architecture=architecture,
        examples_per_second=speed.get("examples_per_second"),
        device=speed.get("device"),
        precision=speed.get("precision"),
    )


def _speeds() -> dict[str, dict[str, Any]]:
    """What earlier runs measured, by folder; empty where none has."""
    from warmstart.engine.activations import default_root

    try:
        found = json.loads((default_root().parent / "throughput.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
