"""The image modality: every way to give images, every way in which they are broken, and preprocessing as transformers does it."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tiny_images import drawings, hf_backbone, tiny_image_backbone, write_folder
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, ColumnNotFound, DataError, FileUnreadable
from warmstart.core.recipe import Recipe
from warmstart.engine import images, preprocessing, sources, tables
from warmstart.engine.examples import Examples, read_examples
from warmstart.engine.image_features import ImageFeatures, oriented_gradients

PART = registry.create("modalities", "image")
GRADIENT = np.broadcast_to(np.linspace(0, 255, 24, dtype=np.uint8)[None, :, None], (16, 24, 3))


def encoded(pixels: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def loaded(value: Any, folder: Path = Path()) -> images.Picture:
    picture: images.Picture = PART.load([(value,)], folder=folder, body=None)[0][0]
    return picture


def read(source: Any, **changes: Any) -> Examples:
    settings: dict[str, Any] = {"task": None, "given": {}, "group": None, "skip_bad": False, "labelled": True}
    return read_examples(source, modality=PART, **(settings | changes))


# Formats --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    picture = loaded(encoded(GRADIENT, kind, **options))
    assert picture.problem == ""
    assert picture.size == (24, 16)
    assert np.abs(images.rgb(picture.small).astype(int) - GRADIENT).max() <= (3 if kind in ("JPEG", "GIF") else 0)


def test_the_first_frame_of_several() -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    assert int(images.grey(loaded(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).small).max()) == 10


def test_exif_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    picture = loaded(encoded(GRADIENT, "PNG", exif=exif))
    assert picture.size == (16, 24)
    assert picture.small[0, 0, 0] < picture.small[-1, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_modes(mode: str) -> None:
    grey = np.tile(np.array([0, 255], np.uint8), (4, 2))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = Image.fromarray(grey).convert("RGB" if mode in ("P", "CMYK") else mode).convert(mode)
    assert image.mode == mode
    assert np.array_equal(images.grey(loaded(image).small), grey)


def test_what_is_transparent_lies_on_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255  # the upper half is black, the lower one cannot be seen
    for given in (Image.fromarray(pixels), pixels, encoded(pixels, "PNG")):
        small = images.grey(loaded(given).small)
        assert (small[:2] == 0).all()
        assert (small[2:] == 255).all()
    palette = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    assert (loaded(encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))).small == 255).all()


@pytest.mark.parametrize("scale", [1.0, 255, 65535])
def test_arrays_of_other_types(scale: float) -> None:
    values = np.array([[0, 1], [0.5, 0.25]]) * scale
    kind = np.float32 if scale == 1 else np.uint16 if scale > 255 else np.int64
    assert np.abs(loaded(values.astype(kind)).small.astype(int) - [[0, 255], [128, 64]]).max() <= 1


def test_equal_pixels_have_equal_content() -> None:
    one, other = (PART.content((loaded(value),)) for value in (np.ascontiguousarray(GRADIENT), encoded(GRADIENT, "PNG")))
    assert one == other
    assert one != PART.content((loaded(np.ascontiguousarray(GRADIENT[::-1, ::-1])),))


def test_memory_is_bounded(tmp_path: Path) -> None:
    body = tiny_image_backbone(tmp_path)
    large = np.zeros((700, 1000, 3), np.uint8)
    picture = PART.load([(large,)], folder=Path(), body=body)[0][0]
    assert picture.pixels.shape == (16, 16, 3)
    assert picture.small.shape == (96, 137, 3)
    assert picture.size == (1000, 700)
    assert max(loaded(np.zeros((2, 9000), np.uint8)).small.shape) <= 4 * 96


# Broken -----------------------------------------------------------------------------------------------------------------------------


BROKEN = {
    "truncated image": encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "PNG")[:4000],
    "not an image": b"<html>not found</html>",
    "empty file": b"",
    "missing image": None,
    "not an image but a int": 3,
    "no such file": "nowhere.png",
    "pixels that are not numbers from 0 to 65,535": np.full((4, 4), np.nan),
    "an array that is not (H, W), (H, W, 3) or (H, W, 4)": np.zeros((2, 2, 2), np.uint8),
    "empty image": np.zeros((0, 5), np.uint8),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_what_is_wrong_is_said(problem: str) -> None:
    picture = loaded(BROKEN[problem])
    assert PART.check((picture,)) == problem
    assert PART.picture((picture,)) == ""


def test_a_decompression_bomb_is_not_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", __import__("zlib").crc32(chunk))
    assert loaded(bomb + b"\0\0\0\0IDAT").problem == "too many pixels"


def test_a_large_photograph_comes_down_while_it_is_decoded() -> None:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    photograph = small.resize((2400, 1800), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6  # held upright
    content = encoded(photograph, "JPEG", quality=95, exif=exif)
    geometry = preprocessing.Geometry(None, 72, (64, 64))
    quick, whole = (images.read(content, folder=Path(), shape=geometry, form="x", need=need) for need in (72, 1000))
    assert quick.size == whole.size == (1800, 2400)
    assert quick.digest == whole.digest
    assert np.array_equal(quick.small, whole.small)
    assert quick.pixels is not None
    assert whole.pixels is not None
    assert np.abs(quick.pixels.astype(int) - whole.pixels).max() <= 4


def test_a_stripe_does_not_fill_the_memory() -> None:
    picture = images.read(np.zeros((1, 5000, 3), np.uint8), folder=Path(), shape=preprocessing.Geometry(None, 256, (224, 224)), form="x")
    assert picture.pixels is not None
    assert picture.pixels.shape == (224, 224, 3)
    assert picture.size == (5000, 1)


def test_a_damaged_jpeg() -> None:
    whole = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "JPEG")
    assert loaded(whole[: len(whole) // 2]).problem == "truncated image"


def test_bad_files_are_named_or_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", 6)
    (folder / "down" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "across" / "zero.png").touch()
    with pytest.raises(DataError, match=r"row 3: .*zero\.png: empty file"):
        read(folder)
    found = read(folder, skip_bad=True)
    assert len(found.inputs) == 6
    assert sum(found.left_out.values()) == 2
    assert found.left_out["empty file"] == 1


# Sources ----------------------------------------------------------------------------------------------------------------------------


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, 6)
    (folder / "across" / ".hidden.png").touch()
    (folder / "across" / "notes.txt").write_text("not an image")
    found = read(folder)
    assert found.targets == ["across"] * 2 + ["diagonal"] * 2 + ["down"] * 2
    assert found.columns == {"image": "image", "label": "label"}
    alone = read(folder / "down", labelled=False)
    assert len(alone.inputs) == 2
    assert alone.targets is None


def test_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_folder(tmp_path / name, 3)
    with pytest.raises(DataError, match="splits") as caught:
        read(tmp_path)
    assert f"--test {tmp_path / 'test'}" in caught.value.do


def test_tables_of_paths_bytes_and_structs(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = drawings(6)
    write_folder(tmp_path / "pictures", 6)
    paths = [f"pictures/{label}/{i:04d}.png" for i, (_, label) in enumerate(table)]
    labels = [label for _, label in table]
    (tmp_path / "table.csv").write_text("file,kind\n" + "".join(f"{p},{k}\n" for p, k in zip(paths, labels, strict=True)))
    content = [(tmp_path / path).read_bytes() for path in paths]
    structs = [{"bytes": b, "path": None} for b in content]
    pa.parquet.write_table(pa.table({"image": structs, "label": labels}), tmp_path / "structs.parquet")
    pa.parquet.write_table(pa.table({"image": content, "label": labels}), tmp_path / "bytes.parquet")
    arrays = {"image": [pixels for pixels, _ in table], "label": labels}
    by_csv = read(tmp_path / "table.csv", given={"label": "kind"})
    for other in (read(tmp_path / "structs.parquet"), read(tmp_path / "bytes.parquet"), read(arrays)):
        assert [PART.content(v) for v in other.inputs] == [PART.content(v) for v in by_csv.inputs]
        assert other.targets == by_csv.targets == labels
    assert "pictures/across/0000.png" in PART.where(by_csv.inputs[0])


def test_a_hugging_face_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    table = drawings(4)
    columns = {"image": [Image.fromarray(pixels) for pixels, _ in table], "label": [0, 1, 2, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["across", "diagonal", "down"])})
    found = read(datasets.Dataset.from_dict(columns, features=features))
    assert found.targets == [label for _, label in table]
    assert [PART.content(v) for v in found.inputs] == [PART.content((loaded(pixels),)) for pixels, _ in table]


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    with gzip.open(path, "wb") as file:
        file.write(content)


def test_idx_files(tmp_path: Path) -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    path = tmp_path / "t-images-idx3-ubyte.gz"
    write_idx(path, pixels)
    write_idx(tmp_path / "t-labels-idx1-ubyte.gz", np.array([7, 0, 7], np.uint8))
    found = read(path)
    assert found.targets == ["7", "0", "7"]
    assert np.array_equal(found.inputs[2][0].small, pixels[2])
    write_idx(tmp_path / "t-labels-idx1-ubyte.gz", np.array([7, 0], np.uint8))
    with pytest.raises(DataError, match="3 images"):
        read(path)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-1]))
    with pytest.raises(FileUnreadable, match="header promises"):
        read(path)
    path.write_bytes(gzip.compress(b"ABCD"))
    with pytest.raises(FileUnreadable, match="IDX"):
        read(path)


def test_several_columns_of_images() -> None:
    columns = {"before": ["a.png"], "after": ["b.png"], "label": ["x"]}
    with pytest.raises(ColumnNotFound, match="several"):
        PART.infer(columns, {})
    assert PART.infer(columns, {"image": "after"}) == {"image": "after"}
    with pytest.raises(ColumnNotFound, match="no column"):
        PART.infer({"text": ["a b"]}, {})


# Which modality ---------------------------------------------------------------------------------------------------------------------


def test_the_modality_is_told_from_the_data(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", 3)
    assert sources.detect(str(folder), {}, skip_bad=False)[0] == "image"
    assert sources.detect([np.zeros((4, 4), np.uint8)], {}, skip_bad=False)[0] == "image"
    (tmp_path / "there.csv").write_text("file,label\ndata/down/0002.png,x\n")
    assert sources.detect(str(tmp_path / "there.csv"), {}, skip_bad=False)[0] == "image"
    (tmp_path / "gone.csv").write_text("text,file,label\na text,data/none.png,x\n")
    assert sources.detect(str(tmp_path / "gone.csv"), {}, skip_bad=False)[0] == "text"
    assert sources.detect(str(tmp_path / "there.csv"), {"text": "file"}, skip_bad=False)[0] == "text"
    (tmp_path / "gone.csv").write_text("file,label\nelsewhere/0.png,x\nelsewhere/1.png,y\n")
    with pytest.raises(DataError, match=r"'file' names files, such as 'elsewhere/0\.png', none of which is in"):
        sources.detect(str(tmp_path / "gone.csv"), {}, skip_bad=False)
    assert sources.detect(str(tmp_path / "gone.csv"), {"text": "file"}, skip_bad=False)[0] == "text"
    (tmp_path / "boxes.csv").write_text("image,label,xmin,ymin,xmax\n0.png,x,1,2,3\n1.png,y,1,2,3\n")
    with pytest.raises(DataError, match="a table of boxes lacks 'ymax'"):
        sources.detect(str(tmp_path / "boxes.csv"), {}, skip_bad=False)
    resolved, rows, note = sources.resolve(Recipe(data=str(folder)))
    assert (resolved.modality, resolved.backbone) == ("image", "none")
    assert isinstance(rows, tables.Table)
    assert "--backbone" in note
    assert sources.resolve(Recipe(data="x.csv", modality="text"))[0].backbone == "minilm"


# Preprocessing ----------------------------------------------------------------------------------------------------------------------

PROCESSORS = {
    "vit": lambda: hf.ViTImageProcessorPil(size={"height": 20, "width": 24}),
    "convnext": lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 30}, crop_pct=0.875),
    "convnext large": lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 384}, crop_pct=0.875),
    "mobilenet": lambda: hf.MobileNetV2ImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}),
    "small": lambda: hf.MobileNetV2ImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 29, "width": 29}),
    "clip": lambda: hf.CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    processor = PROCESSORS[name]()
    processor.save_pretrained(tmp_path)
    own = preprocessing.of(tmp_path)
    assert own.processor is None, "ours should do"
    pixels = np.random.default_rng(1).integers(0, 256, (53, 41, 3), dtype=np.uint8)
    expected = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    values = PART.load([(pixels,)], folder=Path(), body=tmp_path)
    encoder = PART.encoder(tmp_path, 256)
    torch.testing.assert_close(encoder.collate(encoder.encode(values))["pixel_values"], expected, atol=1e-4, rtol=0)


def test_an_unusual_processor_is_called_itself(tmp_path: Path) -> None:
    processor = hf.MobileViTImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})  # its channels are BGR
    processor.save_pretrained(tmp_path)
    assert preprocessing.of(tmp_path).processor is not None
    pixels = np.random.default_rng(1).integers(0, 256, (33, 41, 3), dtype=np.uint8)
    encoder, values = PART.encoder(tmp_path, 256), PART.load([(pixels,)], folder=Path(), body=tmp_path)
    expected = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(encoder.collate(encoder.encode(values))["pixel_values"], expected)


def test_a_body_without_preprocessing(tmp_path: Path, backbone: Path) -> None:
    with pytest.raises(BackboneNotFound, match="no body for images"):
        preprocessing.of(backbone)
    hf_backbone("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image": {"size": [8, 8], "channels": 2}}')
    with pytest.raises(BackboneNotFound, match="channels"):
        preprocessing.of(tmp_path)


# Features of the classic rung -------------------------------------------------------------------------------------------------------


def test_oriented_gradients_see_direction() -> None:
    across = np.broadcast_to(np.arange(32) // 4 % 2, (1, 32, 32)).astype(np.float32)
    found = [oriented_gradients(image).reshape(7, 7, 4, 9).sum((0, 1, 2)) for image in (across, across.transpose(0, 2, 1))]
    assert found[0].argmax() == 0  # the gradient of upright stripes points across
    assert found[1].argmax() in (4, 5)  # 90 degrees lie between the orientations of 80 and 100
    assert np.abs(oriented_gradients(0.5 * across + 0.2) - oriented_gradients(across)).max() < 0.01  # contrast and brightness do not matter


def test_features_of_grey_and_colour(tmp_path: Path) -> None:
    for channels, width in ((1, 1764 + 64 + 64), (3, 1764 + 256 + 192)):
        pictures = [loaded(pixels if channels == 3 else pixels[..., 0]) for pixels, _ in drawings(9)]
        features = ImageFeatures()
        found = features.fit(pictures)
        assert found.shape == (9, width)
        assert found.dtype == np.float32
        assert abs(found.mean()) < 1e-3
        features.save(tmp_path)
        assert np.array_equal(ImageFeatures.load(tmp_path).transform(pictures[:2]), found[:2])
