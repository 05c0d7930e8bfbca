"""Images of any source as one tensor, and the order in which training sees them."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from warmstart.core.errors import ColumnNotFound, DataError, FileUnreadable
from warmstart.engine import pixels
from warmstart.engine.learner import Setting
from warmstart.engine.order import Order


def _folder(root: Path, *, sizes: tuple[tuple[int, int], ...] = ((9, 7),), n: int = 6, mode: str = "RGB") -> Path:
    random = np.random.default_rng(0)
    for i in range(n):
        place = root / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        w, h = sizes[i % len(sizes)]
        shape = (h, w) if mode == "L" else (h, w, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(place / f"{i}.png")
    return root


def _idx(path: Path, array: np.ndarray) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes())
    return path


def test_images_of_one_size_keep_every_byte_and_their_labels(tmp_path: Path) -> None:
    found = pixels.read(Setting(_folder(tmp_path / "in", n=20), tmp_path), labelled=True)
    assert found.shape == (3, 7, 9)
    assert found.images.dtype == torch.uint8
    assert found.names == ("cat", "dog")
    assert (len(found.train), len(found.held)) == (18, 2)
    assert found.corpus.items == {"images": 18, "held-out images": 2}
    first = np.asarray(Image.open(tmp_path / "in" / "cat" / "1.png"))
    assert np.array_equal(found.images[0].permute(1, 2, 0).numpy(), first)
    assert found.labels is not None
    assert found.labels[0] == 0
    rest = set(range(20)) - set(found.train.tolist())
    assert {bytes(image.numpy()) for image in found.held} == {bytes(found.images[i].numpy()) for i in rest}


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 15:] = 200
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    Image.fromarray(wide[:, 10:20]).save(tmp_path / "2.png")
    found = pixels.read(Setting(tmp_path, tmp_path / "run"), channels=3)
    assert found.shape == (3, 10, 10)
    assert (found.images[:, :, :, :4] == 0).all()
    assert (found.images[:, :, :, 6:] == 200).all()
    assert pixels.read(Setting(tmp_path, tmp_path / "run"), size=5).shape == (1, 5, 5)  # r = g = b: grey
    assert found.labels is None


def test_idx_files_and_arrays_give_the_same_tensor(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    path = _idx(tmp_path / "t-images-idx3-ubyte.gz", array)
    _idx(tmp_path / "t-labels-idx1-ubyte.gz", np.arange(12) % 3)
    np.save(tmp_path / "a.npy", array)
    found = pixels.read(Setting(path, tmp_path), labelled=True)
    assert torch.equal(found.images, torch.from_numpy(array)[:, None])
    for data in (array, torch.from_numpy(array), str(tmp_path / "a.npy"), array[..., None]):
        again = pixels.read(Setting(data, tmp_path))
        assert torch.equal(again.images, found.images)
        assert again.corpus.hash == found.corpus.hash
        assert torch.equal(again.held, found.held)
    labelled = pixels.read(Setting({"image": array, "label": [str(i % 3) for i in range(12)]}, tmp_path), labelled=True)
    assert labelled.labels is not None
    assert found.labels is not None
    assert torch.equal(labelled.labels, found.labels)


def test_floats_are_kept_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(20, 6))
    found = pixels.read(Setting(array, tmp_path))
    assert found.shape == (1, 1, 6)
    assert torch.equal(found.batch(torch.tensor([3, 1]), torch.device("cpu"))[:, 0, 0], torch.from_numpy(array[[3, 1]]).float())
    with pytest.raises(DataError, match="not finite"):
        pixels.read(Setting(np.full((4, 2), np.nan), tmp_path))


def test_given_validation_is_held_out(tmp_path: Path) -> None:
    train, held = _folder(tmp_path / "a"), _folder(tmp_path / "b", n=3)
    found = pixels.read(Setting(train, tmp_path, validation=held), labelled=True)
    assert found.train.tolist() == list(range(6))
    assert len(found.held) == 3
    (tmp_path / "b" / "cow").mkdir()
    (tmp_path / "b" / "cat" / "1.png").rename(tmp_path / "b" / "cow" / "1.png")
    with pytest.raises(DataError, match="cow"):
        pixels.read(Setting(train, tmp_path, validation=held), labelled=True)


def test_broken_images_are_named_or_counted(tmp_path: Path) -> None:
    _folder(tmp_path / "in", n=8)
    broken = tmp_path / "in" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "in" / "dog" / "2.png").write_bytes(b"")
    setting = Setting(tmp_path / "in", tmp_path)
    with pytest.raises(DataError, match=r"1\.png"):
        pixels.read(setting)
    found = pixels.read(replace(setting, skip_bad=True))
    assert len(found.images) == 6
    assert sum(found.corpus.left_out.values()) == 2
    assert found.corpus.left_out["empty file"] == 1


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one image"):
        pixels.read(Setting(np.zeros((1, 4, 4), np.uint8), tmp_path))
    with pytest.raises(DataError, match="int64"):
        pixels.read(Setting(np.zeros((4, 4), np.int64), tmp_path))
    with pytest.raises(DataError, match="no labels"):
        pixels.read(Setting(np.zeros((4, 4), np.uint8), tmp_path), labelled=True)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(flat / f"{i}.png")
    with pytest.raises(ColumnNotFound, match="labels"):
        pixels.read(Setting(flat, tmp_path), labelled=True)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(FileUnreadable):
        pixels.read(Setting(tmp_path / "bad.npy", tmp_path))


def test_large_sources_are_mapped_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 256, (600, 3, 3), dtype=np.uint8)
    here = pixels.read(Setting(array, tmp_path))
    monkeypatch.setattr(pixels, "IN_MEMORY_BYTES", 100)
    mapped = pixels.read(Setting(array, tmp_path / "run"))
    assert torch.equal(mapped.images, here.images)
    assert list((tmp_path / "run").iterdir()) == []


def test_an_order_is_a_permutation_a_pass_and_shares_add_up() -> None:
    order = Order(10, 4, seed=3)
    assert order.per_pass == 2
    steps = [order(i) for i in range(4)]
    assert len(set(torch.cat(steps[:2]).tolist())) == 8
    assert not torch.equal(torch.cat(steps[:2]), torch.cat(steps[2:]))
    assert torch.equal(Order(10, 4, seed=3)(3), steps[3])
    assert not torch.equal(Order(10, 4, seed=4)(3), steps[3])
    shares = [Order(10, 4, seed=3, rank=rank, world=3)(3) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == sorted(steps[3].tolist())
    assert Order(3, 64, seed=0)(0).numel() == 3


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileUnreadable, match=r"the folder .*empty is empty\. Expected images"):
        pixels.read(Setting(tmp_path / "empty", tmp_path / "work"))
