"""A model of the Hugging Face Hub by its id, such as microsoft/deberta-v3-small: from the local cache, else downloaded."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, nearest

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]
"""Configuration, tokenizer, weights, licence; never a pickle, never code."""


@dataclass(frozen=True)
class Options:
    """No options."""


class Part:
    """Uses the network only for an id that the user named and that is not in the local cache, and says so on stderr."""

    name = "hub"

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, name: str) -> Path | None:
        """The snapshot folder of ``org/name``, or of a bare name such as ``gpt2``.

        Raises:
            BackboneNotFound: Not in the cache and not to be had (no network, no such id, gated), or without safetensors.
        """
        others = name in registry.parts("backbones") or Path(name).is_dir()
        if others or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
            return None
        folder = _cached(name) or _download(name)
        if not any(folder.glob("*.safetensors")):
            do = "convert it once with transformers (save_pretrained writes safetensors), and name the folder"
            raise BackboneNotFound(f"{name} on the hub has no *.safetensors", "weights that cannot carry code", do)
        return folder

    def known(self) -> dict[str, Path | None]:
        """Every id in the local cache that has a configuration and safetensors."""
        from huggingface_hub import constants

        found: dict[str, Path | None] = {}
        for repo in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
            name = repo.name.removeprefix("models--").replace("--", "/")
            if (folder := _cached(name)) is not None and any(folder.glob("*.safetensors")):
                found[name] = folder
        return found


def _cached(name: str) -> Path | None:
    """The snapshot in the local cache, when it holds a body."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


def _download(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    expected = "a name from warmstart models, a folder, or a hub id"
    given = f"no backbone {name!r} on this machine.{nearest(name, registry.parts('backbones'))}"
    there = f"on a machine with network run: hf download {name} --local-dir FOLDER; copy FOLDER here and give its path"
    if constants.HF_HUB_OFFLINE:
        raise BackboneNotFound(f"{given} HF_HUB_OFFLINE is set", expected, f"unset HF_HUB_OFFLINE, or {there}")
    print(f"{name} is not in the local cache: asking the Hugging Face Hub", file=sys.stderr)
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, ignore_patterns=["*/*"]))
    except GatedRepoError:
        do = f"accept them on the model's page, run: hf auth login; then: hf download {name}"
        raise BackboneNotFound(f"{name} is gated: its owner asks for terms to be accepted", expected, do) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise BackboneNotFound(f"{given} Nor has the hub an open one", expected, "correct the name, or run: hf auth login") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BackboneNotFound(f"{given} The hub cannot be reached ({type(error).__name__})", expected, there) from None
