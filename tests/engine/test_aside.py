"""What is decoded is put aside: the same to the bit, in memory that does not grow, and honest where files change."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

import tiny_masks
import tiny_sound
from tiny_images import hf_backbone, write_folder
from warmstart import cli
from warmstart.core import registry
from warmstart.core.errors import DataError
from warmstart.engine import aside, images, mask_files, preprocessing, sound
from warmstart.engine.aside import Aside, Shed
from warmstart.engine.encodings import Encodings, windows

BIG = np.arange(6_000, dtype=np.int32).reshape(1_500, 4)


@pytest.fixture(params=["on the disk", "nowhere"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Nothing may stay in memory; the disk has room, or none."""
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(aside, "SMALL_BYTES", 0)
    if request.param == "nowhere":
        monkeypatch.setattr(aside, "DISK_SHARE", 0.0)
    return str(request.param)


def test_few_stay_in_memory_and_others_read_back_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", BIG.nbytes)
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    shed = Shed()
    first, second, third, small = shed.keep(BIG), shed.keep(BIG + 1), shed.keep((BIG + 2).astype(np.float16)), shed.keep(BIG[:3])
    assert first is BIG
    assert isinstance(second, Aside)
    assert isinstance(small, np.ndarray)
    assert np.array_equal(second(), BIG + 1)
    assert second().dtype == np.int32
    assert np.array_equal(aside.opened(third), (BIG + 2).astype(np.float16))
    assert np.array_equal(aside.opened(aside.part(second, 10, 20)), (BIG + 1)[10:20])
    assert np.array_equal(aside.opened(aside.part(aside.part(second, 10, 20), 5, 6)), (BIG + 1)[15:16])
    assert not list(tmp_path.rglob("*"))  # the file has no name, so a killed run leaves nothing


def test_where_the_disk_is_full_arrays_are_made_again_or_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 0)
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "no" / "folder"))
    (tmp_path / "no").write_text("in the way")
    shed = Shed()
    assert shed.keep(BIG) is BIG
    again = shed.keep(BIG, lambda: BIG * 1)
    assert isinstance(again, Aside)
    assert np.array_equal(aside.opened(aside.part(again, 2, 4)), BIG[2:4])


@pytest.mark.usefixtures("room")
def test_pictures_are_the_same_wherever_they_lie(tmp_path: Path) -> None:
    files = sorted(write_folder(tmp_path, 12, side=20).rglob("*.png"))
    how = preprocessing.Geometry((16, 16), None, None)
    found = images.read_all(files, folder=Path(), shape=how, form=how.form)
    for path, picture in zip(files, found, strict=True):
        alone = images.read(path, folder=Path(), shape=how, form=how.form)
        assert isinstance(picture.kept, Aside)
        assert picture.digest == alone.digest
        assert np.array_equal(picture.small, alone.small)
        assert np.array_equal(picture.shown, alone.shown)


@pytest.mark.usefixtures("room")
def test_recordings_are_the_same_wherever_they_lie(tmp_path: Path) -> None:
    files = sorted(tiny_sound.folder(tmp_path, 6).rglob("*.wav"))
    for path, found in zip(files, sound.read_all(files, folder=Path()), strict=True):
        alone = sound.read(path, folder=Path())
        assert isinstance(found.kept, Aside)
        assert np.array_equal(found.samples, alone.samples)
        assert (found.digest, found.silent, found.used) == (alone.digest, alone.silent, alone.used)
        parts, wanted = sound.pieces(found, 0.1), sound.pieces(alone, 0.1)
        assert [p.samples.tolist() for p in parts] == [p.samples.tolist() for p in wanted]
        assert len(parts) > 2


def change_picture(path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(path)


def change_sound(path: Path) -> None:
    soundfile.write(path, np.full(4_000, 0.5, np.float32), 8_000)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("change", "said"), [(None, "another"), (remove, "no such")])
@pytest.mark.parametrize("kind", ["picture", "sound", "mask"])
def test_a_file_that_changes_is_noticed(
    kind: str, change: Callable[[Path], None] | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(aside, "SMALL_BYTES", 0)
    monkeypatch.setattr(aside, "DISK_SHARE", 0.0)
    if kind == "sound":
        path = next(tiny_sound.folder(tmp_path, 1).rglob("*.wav"))
        one = sound.read_all([path], folder=Path())[0]
        look: Callable[[], Any] = lambda: one.samples  # noqa: E731
    elif kind == "picture":
        path = next(write_folder(tmp_path, 1).rglob("*.png"))
        picture = images.read_all([path], folder=Path(), shape=None, form="")[0]
        look = lambda: picture.small  # noqa: E731
    else:
        path = next((tiny_masks.write(tmp_path, 1) / "masks").glob("*.png"))
        mask = mask_files.load([path], folder=Path())[0]
        look = lambda: mask.cells  # noqa: E731
    assert look().size
    (change or (change_sound if kind == "sound" else change_picture))(path)
    with pytest.raises(DataError, match=f"{path.name}: .*{said}"):
        look()


def traced(work: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that are held afterwards, and the most that were at any time."""
    tracemalloc.start()
    found = work()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del found
    return now, peak


def photographs(folder: Path, n: int) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (28, 28, 3), dtype=np.uint8)).resize((128, 128)).save(folder / f"{i}.jpg", quality=60)
    return sorted(folder.iterdir())


def test_memory_does_not_grow_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 2**20)
    monkeypatch.setattr("warmstart.engine.encodings.WINDOW_BYTES", 2**20)
    monkeypatch.setattr("warmstart.engine.encodings.AT_ONCE", 4)
    body = hf_backbone("vit", tmp_path / "body")
    modality: Any = registry.create("modalities", "image", options={"size": "128"})
    encoder = modality.encoder(body, 512)
    files = photographs(tmp_path / "photographs", 200)

    def read(paths: Sequence[Path]) -> Callable[[], Any]:
        def work() -> Any:
            values = modality.load([(path,) for path in paths], folder=Path(), body=body)
            encoded = Encodings(encoder, values)
            assert encoded[len(paths) - 1]["pixels"].shape == (128, 128, 3)
            assert sum(len(window) for window in windows(encoder, values)) == len(paths)
            return values, encoded

        return work

    traced(read(files[:20]))  # pays for imports
    few, many = traced(read(files[:80])), traced(read(files))
    assert many[0] - few[0] < 120 * 4_096  # of 77 KB of pixels each
    assert many[1] - few[1] < 120 * 8_192
    assert many[1] < 10 * 2**20


def test_memory_does_not_grow_with_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 2**20)
    random = np.random.default_rng(0)
    waves: list[Path] = []
    for i in range(60):
        waves.append(tmp_path / f"{i}.wav")
        soundfile.write(waves[-1], random.uniform(-0.5, 0.5, 80_000), 16_000)

    def read(paths: Sequence[Path]) -> Callable[[], list[sound.Sound]]:
        return lambda: sound.read_all(paths, folder=Path())

    traced(read(waves[:4]))
    few, many = traced(read(waves[:20])), traced(read(waves))
    assert many[0] - few[0] < 40 * 4_096  # of 320 KB of samples each
    assert many[1] < 12 * 2**20


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.mark.usefixtures("room")
def test_training_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, body = write_folder(tmp_path / "data", 60, side=20), hf_backbone("resnet", tmp_path / "body")
    flags = ["--backbone", str(body), "--strategy", "linear_probe", "--views", "1", "--budget", "2m", "--quiet"]
    assert cli.main(["adapt", str(data), "--out", str(tmp_path / "aside"), *flags]) == 0
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 2**30)
    recipe = ["--recipe", str(tmp_path / "aside" / "recipe.json"), "--quiet"]
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "other"))
    assert cli.main(["adapt", str(data), "--out", str(tmp_path / "memory"), *recipe]) == 0
    assert weights(tmp_path / "aside") == weights(tmp_path / "memory")
    scores = [json.loads((tmp_path / n / "report.json").read_text())["metrics"]["accuracy"] for n in ("aside", "memory")]
    assert scores[0] == scores[1]


def test_masks_put_aside_train_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, body = tiny_masks.write(tmp_path / "data", 60), hf_backbone("resnet", tmp_path / "body")
    flags = ["--backbone", str(body), "--strategy", "linear_probe", "--set", "task.width=8", "--set", "task.epochs=1", "--quiet"]
    found: list[dict[str, bytes]] = []
    for name, room in (("memory", 2**30), ("aside", 0)):
        monkeypatch.setattr(aside, "IN_MEMORY_BYTES", room)
        monkeypatch.setattr(aside, "SMALL_BYTES", 0)
        how = ["--recipe", str(tmp_path / "memory" / "recipe.json"), "--quiet"] if found else [*flags, "--budget", "2m"]
        assert cli.main(["adapt", str(data), "--out", str(tmp_path / name), *how]) == 0
        found.append(weights(tmp_path / name))
    assert found[0] == found[1]
    assert found[0]


def test_arrays_that_were_given_are_put_aside_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "IN_MEMORY_BYTES", 0)
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    one, other = images.read_all([pixels, pixels[::-1]], folder=Path(), shape=None, form="")
    assert isinstance(one.kept_small, Aside)
    assert np.array_equal(one.small[::-1], other.small)
