"""What pre-training is worth: ``adapt`` from a pre-trained body against ``adapt`` from the same body with random weights, on few labels.

    python benchmarks/pretraining_worth.py --objective gpt --corpus wikitext2/valid.txt --dataset sst2 --per-class 32 --repeats 5
    python benchmarks/pretraining_worth.py --objective supervised --images cifar10_small/train cifar10_small/test \\
        --classes frog,horse,ship,truck
    python benchmarks/pretraining_worth.py --objective wav2vec --dataset fsdd --per-class 10 --classic --set size=tiny

With ``--images`` the rows are those of two folders of class folders; the corpus is then all other classes of the first (or, with
``--all``, all of them), and ``adapt`` is asked for ``--classes``.

Both bodies come from ``warmstart pretrain`` with the same options; the random one with ``objective.steps=0``. Each draw of labels is used
by both, with the same strategy and budget, and both are measured on the whole test set; ``--classic`` adds the classic rung.
Without ``--corpus`` the training rows of the data set are learned from, without their labels. ``--trained`` and ``--random`` name bodies
that are there already. One JSON line a draw, and one at the end with the mean difference and its 95 % interval over draws (Student).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import corpora
from warmstart.core import recipe as recipes
from warmstart.core.recipe import PretrainRecipe, Recipe
from warmstart.engine import statistics
from warmstart.stages import adapt, pretrain


def body(given: argparse.Namespace, folder: Path, *sets: str) -> Path:
    """A body as asked for, with further options."""
    asked = [f"data={given.corpus}", f"objective={given.objective}", f"seed={given.seed}", *given.sets, *sets]
    pretrain.run(recipes.with_sets(PretrainRecipe(), asked), out=folder)
    return folder


def accuracy(given: argparse.Namespace, backbone: Path | None, files: dict[str, Path], out: Path, seed: int) -> float:
    """Test accuracy after adapting on a draw; without a backbone that of the classic rung."""
    how = ["strategy=classic"] if backbone is None else [f"backbone={backbone}", f"strategy={given.strategy}"]
    sets = [f"data={files['train']}", f"test={files['test']}", *how, f"seed={seed}"]
    report = adapt.run(recipes.with_sets(Recipe(), [*sets, f"budget={given.budget}"]), out=out)
    return report.metrics["accuracy"].value


def image_rows(given: argparse.Namespace, folder: Path) -> tuple[list[tuple[str, str]], Path]:
    """Rows to adapt on, and the table to test on; ``given.corpus`` becomes the table of what is pre-trained on."""
    train, test = (
        [(str(path.absolute()), path.parent.name) for path in sorted(Path(place).glob("*/*")) if path.is_file()] for place in given.images
    )
    wanted = set(given.classes.split(",")) if given.classes else {label for _, label in train}
    seen = [row for row in train if given.all or row[1] not in wanted]
    given.corpus = given.corpus or corpora.write(folder / "corpus.csv", seen, column="image")
    train, test = ([row for row in rows if row[1] in wanted] for rows in (train, test))
    return train, corpora.write(folder / "test.csv", test, column="image")


def main() -> None:
    """Compare on several draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objective", required=True)
    parser.add_argument("--corpus")
    parser.add_argument("--images", nargs=2, metavar=("TRAIN", "TEST"), help="folders of class folders")
    parser.add_argument("--classes", default="", help="of the images, for adapt; the others are pre-trained on")
    parser.add_argument("--all", action="store_true", help="pre-train on the images of all classes")
    parser.add_argument("--dataset", default="sst2", choices=sorted(corpora.DATASETS))
    parser.add_argument("--classic", action="store_true")
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--random", type=Path)
    parser.add_argument("--per-class", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw, to measure in several goes")
    parser.add_argument("--strategy", default="linear_probe")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        column, gains = "image" if given.images else "text", []
        if given.images:
            rows, test = image_rows(given, folder)
        else:
            rows, test = corpora.read(given.dataset, "train"), corpora.write(folder / "test.csv", corpora.read(given.dataset, "test"))
        if given.corpus is None:
            given.corpus = corpora.write(folder / "corpus.csv", [(row, "") for row, _ in rows])
        trained = given.trained or body(given, folder / "trained")
        fresh = given.random or body(given, folder / "random", "objective.steps=0")
        bodies = {"pretrained": trained, "random": fresh} | ({"classic": None} if given.classic else {})
        for draw in range(given.first, given.first + given.repeats):
            train = corpora.write(folder / f"train{draw}.csv", corpora.draw(rows, given.per_class, draw), column=column)
            files = {"train": train, "test": test}
            found = {name: accuracy(given, b, files, folder / f"{name}-{draw}", draw) for name, b in bodies.items()}
            gains.append(found["pretrained"] - found["random"])
            print(json.dumps({"draw": draw, **{name: round(value, 4) for name, value in found.items()}}), flush=True)
        low, high = statistics.mean_interval(gains, bounds=(-1.0, 1.0))
        row = {
            "objective": given.objective,
            "dataset": given.classes or given.dataset,
            "per_class": given.per_class,
            "strategy": given.strategy,
        }
        print(
            json.dumps({**row, "gain": round(float(np.mean(gains)), 4), "low": round(low, 4), "high": round(high, 4), "draws": len(gains)})
        )


if __name__ == "__main__":
    main()
