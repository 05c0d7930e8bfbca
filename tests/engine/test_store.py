"""The room where weights are written: whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import tiny_model
from warmstart.core.errors import BackboneNotFound, DamagedModel, DiskFull
from warmstart.engine import store


def test_tensors_come_back_with_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.safetensors"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(5), "c": torch.randn(2, 2).bfloat16()}
    store.write_tensors(path, {**tensors, "d": np.eye(3)[:, ::2]})
    found = store.read_tensors(path)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert torch.equal(found["d"], torch.eye(3, dtype=torch.float64)[:, ::2])
    assert [p.name for p in path.parent.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"x" * 100, None])
def test_a_damaged_file_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    store.write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    with pytest.raises(DamagedModel, match=r"t\.safetensors cannot be opened"):
        store.read_tensors(path)
    with pytest.raises(DamagedModel):
        store.read_tensors(tmp_path / "none.safetensors")


def test_weights_are_as_readable_as_other_files(tmp_path: Path) -> None:
    store.write_json(tmp_path / "file.json", {})
    store.write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(3)})
    store.save_transformers(tiny_model("bert"), tmp_path / "body")
    files = [tmp_path / "file.json", tmp_path / "t.safetensors", tmp_path / "body" / "model.safetensors"]
    assert len({file.stat().st_mode for file in files}) == 1


def test_what_fails_midway_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    store.write_json(path, {"a": "ä"})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        store.write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError), store.replacing(path) as temporary:
        temporary.write_text("half \udcff", encoding="utf-8")
    assert path.read_bytes() == before == '{\n "a": "ä"\n}\n'.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_full_disk_has_its_own_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(DiskFull, match="no space left while writing"), store.replacing(tmp_path / "file"):
        Path("/dev/full").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys, torch
from pathlib import Path
from warmstart.core.errors import DiskFull
from warmstart.engine import store
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
path = Path(sys.argv[1])
try:
    store.write_tensors(path, {"a": torch.zeros(100_000)})
except DiskFull as error:
    print(error.kind)
"""


def test_a_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    store.write_tensors(path, {"a": torch.ones(3)})
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.stdout == "DiskFull\n", done.stderr
    assert torch.equal(store.read_tensors(path)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "deberta_v2", "modernbert", "gpt2"])
def test_bodies_and_native_classifiers_come_back(name: str, tmp_path: Path) -> None:
    body = tiny_model(name)
    store.save_transformers(body, tmp_path / "body")
    again = store.load_body(tmp_path / "body")
    assert type(again) is type(body)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), body.state_dict().values(), strict=True))

    whole = store.with_native_head(body, ["no", "yes", "perhaps"], "single_label_classification")
    store.save_transformers(whole, tmp_path / "whole")
    loaded = store.load_native(tmp_path / "whole")
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        assert torch.equal(loaded(**batch)["logits"], whole(**batch)["logits"])
    assert loaded.config.id2label == {0: "no", 1: "yes", 2: "perhaps"}
    inner = getattr(whole, whole.base_model_prefix)
    shared = {key: value for key, value in inner.state_dict().items() if key in body.state_dict()}
    assert all(torch.equal(value, body.state_dict()[key]) for key, value in shared.items())


def test_a_classifier_that_needs_more_than_the_body_is_refused() -> None:
    with pytest.raises(BackboneNotFound, match="weights that the backbone lacks: decoder"):
        store.with_native_head(tiny_model("t5_encoder"), ["a", "b"], "single_label_classification")


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        store.save_transformers(tiny_model("bert", seed=seed), tmp_path / name)
    first, same, other = (store.fingerprint(tmp_path / name) for name in "abc")
    assert first == same != other
