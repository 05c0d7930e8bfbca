"""Small pictures with coloured rectangles on noise, as images, a table of their boxes, and other forms of the same labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "red": (220, 50, 40)}


def pictures(
    n: int, *, seed: int = 0, size: tuple[int, int] = (48, 64)
) -> list[tuple[np.ndarray, list[tuple[str, tuple[int, int, int, int]]]]]:
    """``n`` images (H, W, 3) with up to two rectangles each, and where those are."""
    random = np.random.default_rng(seed)
    height, width = size
    found = []
    for i in range(n):
        pixels = random.integers(90, 150, (height, width, 3), dtype=np.uint8)
        boxes = []
        for half in range(2 if i % 8 else 0):  # every eighth is empty
            if half and random.random() < 0.4:
                continue
            name = sorted(COLOURS)[int(random.integers(2))]
            w, h = (int(v) for v in random.integers(12, 26, 2))
            x = int(random.integers(0, width // 2 - w // 2)) + half * width // 2
            x, y = min(x, width - w), int(random.integers(0, height - h))
            pixels[y : y + h, x : x + w] = COLOURS[name]
            boxes.append((name, (x, y, x + w, y + h)))
        found.append((pixels, boxes))
    return found


def write_table(folder: Path, n: int, *, seed: int = 0, name: str = "boxes.csv") -> Path:
    """PNG files in ``images``, and a table with a row for each box; an image without boxes has a row of its own."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "xmin", "ymin", "xmax", "ymax"])
        for i, (pixels, boxes) in enumerate(pictures(n, seed=seed)):
            image = f"{seed}-{i:03d}.png"
            Image.fromarray(pixels).save(folder / "images" / image)
            writer.writerows([image, label, *corners] for label, corners in boxes)
            if not boxes:
                writer.writerow([image, "", "", "", "", ""])
    return folder / name


def write_coco(folder: Path, n: int) -> Path:
    """The same as COCO JSON."""
    write_table(folder, n).unlink()
    names = sorted(COLOURS)
    images, annotations = [], []
    for i, (_, boxes) in enumerate(pictures(n)):
        images.append({"id": i, "file_name": f"0-{i:03d}.png", "width": 64, "height": 48})
        for label, (x, y, right, bottom) in boxes:
            box = {"id": len(annotations), "image_id": i, "category_id": names.index(label) + 1, "bbox": [x, y, right - x, bottom - y]}
            annotations.append(box)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    path = folder / "instances_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_yolo(folder: Path, n: int) -> Path:
    """The same as YOLO text files."""
    write_table(folder, n).unlink()
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [blue, red]\n")
    for i, (_, boxes) in enumerate(pictures(n)):
        lines = [
            f"{sorted(COLOURS).index(label)} {(x + r) / 2 / 64} {(y + b) / 2 / 48} {(r - x) / 64} {(b - y) / 48}"
            for label, (x, y, r, b) in boxes
        ]
        (folder / "labels" / f"0-{i:03d}.txt").write_text("\n".join(lines))
    return folder


def write_voc(folder: Path, n: int) -> Path:
    """The same as Pascal VOC XML."""
    write_table(folder, n).unlink()
    (folder / "Annotations").mkdir()
    for i, (_, boxes) in enumerate(pictures(n)):
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{r}</xmax><ymax>{b}</ymax></bndbox></object>"
            for label, (x, y, r, b) in boxes
        )
        text = f"<annotation><filename>0-{i:03d}.png</filename>{objects}</annotation>"
        (folder / "Annotations" / f"0-{i:03d}.xml").write_text(text)
    return folder
