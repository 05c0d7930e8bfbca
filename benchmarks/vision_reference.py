"""Published weights, imported, against the figures that are known of them.

    python benchmarks/vision_reference.py

Each is imported (and so compared with a forward pass of its state dict), then used as it is on the data beside it, or as a frozen body:
pooled features with scikit-learn's logistic regression, and with warmstart's own ``linear_probe`` on all stages. Prints a table.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import bench
import corpora
from warmstart.core import registry
from warmstart.engine import activations, backbone, importing, model, workbench
from weights import SPEECH_EMBEDDING, SPEECH_FRONT, WEIGHTS

ANTS = {"ants": "ant, emmet, pismire", "bees": "bee"}


@dataclass(frozen=True)
class Reference:
    """What is measured, what is known, and how it is measured."""

    what: str
    known: str
    measure: Callable[[Path], str]


def imported(folder: Path, architecture: str, file: str, classes: str = "", **options: Any) -> Path:
    out = folder / file.partition(".")[0]
    names = WEIGHTS / classes if classes else None
    if not out.exists():
        importing.run(WEIGHTS / file, architecture=architecture, out=out, classes=names, options=options)
    return out


def mobilenet(folder: Path) -> Path:
    file = "mobilenet_v2_imagenet.fp16.safetensors"
    return imported(folder, "mobilenet_v2", file, "imagenet_classes.txt", padding="same", pixels="signed")


def squeezenet(folder: Path) -> Path:
    file = "squeezenet1_1_imagenet.fp16.safetensors"
    return imported(folder, "squeezenet1_1", file, "imagenet_classes.txt", pixels="caffe", size=227)


def cifar(folder: Path, depth: int) -> str:
    names = folder / "cifar.txt"
    names.write_text("\n".join(sorted(path.name for path in (corpora.DATA / "cifar10_small" / "test").iterdir())))
    body = folder / f"resnet{depth}_cifar10"
    if not body.exists():
        importing.run(WEIGHTS / f"{body.name}.safetensors", architecture=f"resnet{depth}_cifar", out=body, classes=names)
    report = json.loads(command("evaluate", str(body), str(corpora.DATA / "cifar10_small" / "test"), "--json"))
    return f"{100 * report['metrics']['accuracy']['value']:.1f}"


def photos(split: str) -> tuple[list[Path], list[str]]:
    files = sorted((corpora.DATA / "ants_bees" / split).rglob("*.jpg"))
    return files, [file.parent.name for file in files]


def exact(folder: Path) -> str:
    files, names = photos("val")
    found = model.load(mobilenet(folder)).predict(files)
    right = sum(record["label"] == ANTS[name] for record, name in zip(found, names, strict=True))
    return f"{right} of {len(files)}"


def frozen(
    modality: str, body: str, train: tuple[Sequence[Any], list[str]], test: tuple[Sequence[Any], list[str]], *, point: int, **options: Any
) -> str:
    """Test accuracy of logistic regression on the pooled state at a point of the trunk, without standardising."""
    features: list[NDArray[np.float32]] = []
    part = registry.create("modalities", modality)
    where = backbone.find(body, options)[1]
    for values, _ in (train, test):
        inputs = part.load([(value,) for value in values], folder=Path(), body=where)
        rows = workbench.Workbench(
            inputs=inputs,
            targets=np.zeros(len(inputs), np.int64),
            labels=("a", "b"),
            task=registry.create("tasks", "classification"),
            modality=part,
            backbone_name=str(where),
            device=torch.device("cpu"),
            precision=torch.float32,
            max_length=256,
            seed=0,
            store=activations.Store(Path(tempfile.mkdtemp())),
        )
        features.append(rows.pooled(np.arange(len(inputs)))[:, point].numpy())
    scale = np.abs(features[0]).max()
    fitted = LogisticRegression(max_iter=3000).fit(features[0] / scale * 10, train[1])
    return f"{100 * fitted.score(features[1] / scale * 10, test[1]):.1f}"


def spoken(split: str, *, step: int = 1) -> tuple[list[Any], list[str]]:
    rows = corpora.read("fsdd", split)[::step]
    return [file for file, _ in rows], [label for _, label in rows]


def probe(train: Path | str, test: Path | str, body: str, *sets: str) -> str:
    """Test accuracy of ``adapt --strategy linear_probe``, and the seconds of the whole command with an empty store."""
    with tempfile.TemporaryDirectory() as out:
        flags = [flag for text in sets for flag in ("--set", text)]
        args = ("adapt", str(train), "--test", str(test), "--backbone", body, "--strategy", "linear_probe", *flags)
        report = json.loads(command(*args, "--budget", "5m", "--out", f"{out}/m", "--json", cache=f"{out}/cache"))
    return f"{100 * report['metrics']['accuracy']['value']:.1f} in {report['seconds']:.0f} s"


def command(*args: str, cache: str | None = None) -> str:
    env = {**os.environ, **({"WARMSTART_CACHE": cache} if cache else {})}
    return subprocess.run([sys.executable, "-m", "warmstart", *args], env=env, check=True, capture_output=True, text=True).stdout


def digits(folder: Path, split: str, *, step: int = 1) -> Path:
    files, labels = spoken(split, step=step)
    path = folder / f"{split}.csv"
    with path.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["audio", "label"], *zip(files, labels, strict=True)])
    return path


def yamnet(folder: Path) -> Path:
    return imported(folder, "yamnet", "yamnet_audioset.fp16.safetensors", "yamnet_class_map.csv")


def heard_as_speech(folder: Path) -> str:
    found = model.load(yamnet(folder)).predict(spoken("test")[0])
    top = [max(record["probabilities"], key=record["probabilities"].get) for record in found]
    return f"{100 * top.count('Speech') / len(top):.0f} %"


PHOTOS = tuple(str(corpora.DATA / "ants_bees" / split) for split in ("train", "val"))
STEP = 4

REFERENCES = [
    Reference("ResNet-20 as it is, cifar10_small, accuracy", "81.3", lambda folder: cifar(folder, 20)),
    Reference("ResNet-56 as it is, cifar10_small, accuracy", "83.2", lambda folder: cifar(folder, 56)),
    Reference("MobileNetV2 as it is, ants_bees, exact class first", "122 of 153", exact),
    Reference(
        "MobileNetV2, pooled features, logistic regression, ants_bees",
        "93.5",
        lambda folder: frozen("image", str(mobilenet(folder)), photos("train"), photos("val"), point=-1),
    ),
    Reference("MobileNetV2, linear_probe, ants_bees", "-", lambda folder: probe(*PHOTOS, str(mobilenet(folder)))),
    Reference(
        "SqueezeNet 1.1, pooled features, logistic regression, ants_bees",
        "87.6",
        lambda folder: frozen("image", str(squeezenet(folder)), photos("train"), photos("val"), point=-2),
    ),
    Reference("SqueezeNet 1.1, linear_probe, ants_bees", "-", lambda folder: probe(*PHOTOS, str(squeezenet(folder)))),
    Reference("YAMNet as it is, fsdd: first class is Speech", "-", heard_as_speech),
    Reference(
        f"YAMNet, linear_probe, fsdd, a {STEP}th of the training takes",
        "-",
        lambda folder: probe(digits(folder, "train", step=STEP), digits(folder, "test"), str(yamnet(folder))),
    ),
    Reference(
        f"speech embedding (ONNX), pooled, logistic regression, fsdd, a {STEP}th",
        "98.3",
        lambda folder: frozen("audio", SPEECH_EMBEDDING, spoken("train", step=STEP), spoken("test"), point=-1, **SPEECH_FRONT),
    ),
    Reference(
        f"speech embedding (ONNX), linear_probe, fsdd, a {STEP}th",
        "98.3",
        lambda folder: probe(
            digits(folder, "train", step=STEP),
            digits(folder, "test"),
            SPEECH_EMBEDDING,
            *(f"backbone.{k}={v}" for k, v in SPEECH_FRONT.items()),
        ),
    ),
]


def main() -> int:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WARMSTART_CACHE"] = f"{folder}/cache"
        for reference in REFERENCES:
            rows.append([reference.what, reference.known, reference.measure(Path(folder))])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(bench.table(["what", "known", "measured"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
