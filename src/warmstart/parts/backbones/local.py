"""A folder in Hugging Face format (config.json and *.safetensors), or a model folder that warmstart wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound


@dataclass(frozen=True)
class Options:
    """No options."""


class Part:
    """Takes every name that is a folder, or that is written like a path."""

    name = "local"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The folder itself.

        Raises:
            BackboneNotFound: No such folder, no ``config.json``, or weights that are not safetensors.
        """
        if name in registry.parts("backbones"):  # minilm is the default even where a folder has its name: that one is ./minilm
            return None
        folder = Path(name).expanduser()
        if not folder.is_dir():
            if re.match(r"[./~\\]|[A-Za-z]:", name) or name.count("/") > 1:
                raise BackboneNotFound(f"no folder {name}", "a folder with config.json and *.safetensors", "correct the path")
            return None
        if not (folder / "config.json").is_file():
            do = "see: warmstart models"
            raise BackboneNotFound(f"{name} has no config.json", "a folder in Hugging Face format, or a model folder with a body", do)
        if not any(folder.glob("*.safetensors")) and not (folder / "model.onnx").is_file():
            raise BackboneNotFound(f"{name} has no *.safetensors", "weights that cannot carry code", _convert(folder))
        return folder

    def known(self) -> dict[str, Path | None]:
        """Nothing: the machine is not searched for folders."""
        return {}


def _convert(folder: Path) -> str:
    """How to get safetensors out of what is there."""
    if not any(folder.glob("*.bin")):
        return "copy the weights there too"
    call = f"AutoModel.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained({str(folder)!r})"
    return f'if you trust its origin, convert it once: python -c "from transformers import AutoModel; {call}"'
