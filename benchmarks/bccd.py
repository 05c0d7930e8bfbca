"""Finding blood cells: ``adapt`` from a pre-trained body against ``adapt`` from the same body with random weights, in the same time.

    python benchmarks/bccd.py --data bccd --backbone mobilenet --budget 5m

``--data`` holds ``images`` and ``boxes.csv`` with a column ``split`` (train, val, test); rows of ``train`` and ``val`` are adapted on, and
those of ``test`` are measured on. ``--backbone`` is a folder of transformers, such as ``warmstart models import`` makes. The random body
has its configuration and its preprocessing; the running statistics of its norms are those of training images, without which what it gives
would vanish. ``--strategy full`` trains it as a whole. One JSON line each.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

import torch

from warmstart.core import recipe as recipes
from warmstart.core.recipe import Recipe
from warmstart.engine import images, preprocessing, store
from warmstart.engine.detectors import SIDE
from warmstart.stages import adapt


def tables(data: Path, folder: Path) -> tuple[Path, Path]:
    """Boxes to adapt on, and to test on, beside links to the images."""
    with (data / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (folder / "images").symlink_to((data / "images").absolute())
    for name, splits in (("train", ("train", "val")), ("test", ("test",))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row in rows if row["split"] in splits)
    return folder / "train.csv", folder / "test.csv"


def untrained(body: Path, folder: Path, pictures: list[Path], seed: int) -> Path:
    """The same body with random weights, its batch norms fitted to some images."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.from_pretrained(body)).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over the batches
    how = preprocessing.of(body, whole=(SIDE, SIDE))
    read = images.read_all(pictures, folder=Path(), shape=how.shape, form=how.form)
    with torch.no_grad():
        for start in range(0, len(read), 16):
            model(pixel_values=how.collate([how.encode(picture) for picture in read[start : start + 16]]))
    store.save_transformers(model.eval(), folder)
    shutil.copy(body / "preprocessor_config.json", folder)
    return folder


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--only", choices=["pre-trained", "random"], help="measure one of the two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder that both models are left in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        train, test = tables(given.data, folder)
        some = sorted((given.data / "images").iterdir())[:64]
        random = untrained(given.backbone, folder / "random", some, given.seed)
        for name, body in (("pre-trained", given.backbone), ("random", random)):
            if given.only not in (None, name):
                continue
            how = [f"data={train}", f"test={test}", f"backbone={body}", f"strategy={given.strategy}", f"budget={given.budget}"]
            out = (given.keep or folder) / f"{name}-model"
            report = adapt.run(recipes.with_sets(Recipe(), [*how, f"seed={given.seed}"]), out=out)
            scores = {key: [round(v, 4) for v in (m.value, m.low, m.high)] for key, m in report.metrics.items()}
            rungs = {rung.strategy: (rung.score, rung.seconds, rung.note) for rung in report.ladder}
            told = {"body": name, "strategy": report.strategy, "seconds": round(report.seconds, 1), "metrics": scores, "ladder": rungs}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
