"""The embedded default for sound: a small convolutional network (0.9 M parameters, Apache-2.0), pre-trained by this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "embedded" / "soundnet"


@dataclass(frozen=True)
class Options:
    """No options."""


class Part:
    """Lies in the package: ``recipes/sound`` made it, and its README says from what and how good it is."""

    name = "soundnet"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The folder for the name ``soundnet``."""
        return FOLDER if name == self.name else None

    def known(self) -> dict[str, Path | None]:
        """``soundnet`` and its folder."""
        return {self.name: FOLDER}
