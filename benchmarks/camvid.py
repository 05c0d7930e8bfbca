"""Street scenes, a class for each pixel: ``adapt`` from MobileNetV2 of ImageNet and from the same body untrained, in equal time.

    python benchmarks/camvid.py --budget 3m

Reads ``camvid_small`` (``train``, ``trainannot``, ``test``, ``testannot``) and the weights beside it. The untrained body has the same
configuration and random convolutions, and climbs the same rungs; ``--strategy full`` trains it as a whole. As nothing moves the statistics
of a body's batch norms during ``adapt``, they are first measured on the training images: without that its states would fade to nothing.
Each adapt is a whole command with an empty activation store. Prints a table, and with ``--json`` a line for each body.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bench
import corpora
import weights
from warmstart.engine import images, preprocessing, store

FOLDER = corpora.DATA / "camvid_small"
NAMES = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,cyclist,void"
BATCH = 16


def untrained(body: Path, folder: Path, *, photos: Sequence[Path], seed: int) -> Path:
    """The same body with random weights, its batch norms measured on ``photos``."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    made = AutoModel.from_config(AutoConfig.from_pretrained(body))
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    measured(made, body, photos)
    store.save_transformers(made, folder)
    shutil.copy(body / preprocessing.FILE, folder)
    return folder


@torch.no_grad()
def measured(made: nn.Module, body: Path, photos: Sequence[Path]) -> None:
    """Let the batch norms see the photographs once."""
    form = preprocessing.of(body)
    pictures = images.read_all(photos, folder=Path(), shape=form.shape, form=form.form)
    made.train()
    for first in range(0, len(pictures) - BATCH + 1, BATCH):
        made(pixel_values=form.collate([form.encode(picture) for picture in pictures[first : first + BATCH]]))
    made.eval()


def adapted(body: Path, place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The report of one ``adapt``."""
    command = [sys.executable, "-m", "warmstart", "adapt", FOLDER / "train", "--test", FOLDER / "test", "--task", "semantic-segmentation"]
    command += ["--set", f"task.names={NAMES}", "--backbone", body, "--budget", given.budget, "--strategy", given.strategy]
    command += ["--seed", given.seed, "--out", place / "model", "--json", "--quiet"]
    environment = {**os.environ, "WARMSTART_CACHE": str(place / "cache")}
    done = subprocess.run([str(part) for part in command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def told(metric: dict[str, Any] | None) -> str:
    """A share in percent with its interval."""
    return "-" if metric is None else f"{100 * metric['value']:.1f} ({100 * metric['low']:.1f} to {100 * metric['high']:.1f})"


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--only", choices=["ImageNet", "untrained"], help="measure one of the two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        body = weights.imported("mobilenet_v2", place)
        photos = sorted((FOLDER / "train").glob("*.jpg"))
        bodies = {"ImageNet": body, "untrained": untrained(body, place / "untrained", photos=photos, seed=given.seed)}
        for name, one in bodies.items():
            if given.only not in (None, name):
                continue
            report = adapted(one, place / name, given)
            if given.json:
                print(json.dumps({"body": name, **report}), flush=True)
            metrics = report["metrics"]
            figures = [told(metrics.get(metric)) for metric in ("miou", "pixel_accuracy")]
            rows.append([name, report["strategy"], *figures, f"{report['seconds']:.0f}"])
    print(bench.table(["MobileNetV2", "chosen", "mean IoU, %", "pixel accuracy, %", "seconds"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
