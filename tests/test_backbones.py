"""Where bodies come from: each source takes its own names, refuses what is unsafe, and says how to get what is missing."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound
from warmstart.stages.models import count_parameters


def source(name: str) -> Any:
    return registry.create("backbones", name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in Hugging Face format with one small weight file."""
    tensors = {
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [12, 20]},
        "__metadata__": {"format": "pt"},
    }
    header = json.dumps(tensors).encode()
    body = tmp_path / "org" / "body"
    body.mkdir(parents=True)
    (body / "config.json").write_text('{"model_type": "bert"}')
    (body / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(20))
    return body


def test_header_alone_counts_parameters(folder: Path) -> None:
    assert count_parameters(folder / "model.safetensors") == 6
    (folder / "short.safetensors").write_bytes(b"abc")
    (folder / "huge.safetensors").write_bytes(b"\xff" * 16)
    for name in ("short", "huge"):
        with pytest.raises(ValueError, match="not a safetensors file"):
            count_parameters(folder / f"{name}.safetensors")


def test_a_folder_is_local_and_of_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert source("local").find("org/body") == Path("org/body")
    assert source("hub").find("org/body") is None
    assert source("minilm").find("org/body") is None


@pytest.mark.parametrize(
    ("files", "said"),
    [(["config.json", "pytorch_model.bin"], "save_pretrained"), (["config.json"], "Copy the weights"), ([], "config.json")],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(BackboneNotFound, match=said):
        source("local").find(str(tmp_path))


@pytest.mark.parametrize("name", ["./none", "/none", "~/none", "a/b/c", "../none"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(BackboneNotFound, match="no folder"):
        source("local").find(name)


@pytest.mark.parametrize(("name", "said"), [("minilmm", "Did you mean 'minilm'"), ("org/none", "hf download org/none")])
def test_the_hub_offline(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert source("local").find(name) is None
    with pytest.raises(BackboneNotFound, match="HF_HUB_OFFLINE") as caught:
        source("hub").find(name)
    assert said in str(caught.value)


def test_the_hub_s_cache_needs_no_network(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = "0" * 40
    repo = tmp_path / "hub" / "models--org--cached"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    shutil.copytree(folder, repo / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert source("hub").find("org/cached") == repo / "snapshots" / revision
    assert source("hub").known() == {"org/cached": repo / "snapshots" / revision}


@pytest.mark.parametrize("name", ["a b", "weird!", "-", "", "org/", "minilm"])
def test_no_hub_names(name: str) -> None:
    assert source("hub").find(name) is None


def test_minilm_is_the_published_one() -> None:
    part = source("minilm")
    if part.known()["minilm"] is None:
        with pytest.raises(BackboneNotFound, match="pip install"):
            part.find("minilm")
        pytest.skip("the default backbone is not installed")
    found = part.find("minilm")
    assert found is not None
    assert count_parameters(found / "model.safetensors") == 22_713_216
    assert part.find("other") is None
