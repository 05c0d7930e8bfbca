"""Seconds per epoch of ``supervised`` against the plain PyTorch loop that tutorials show, with the same network, data and schedule.

    python benchmarks/supervised_loop.py --data cifar10_small/train --network convnet --epochs 4

The plain loop decodes and changes one image at a time in ``Dataset.__getitem__`` (Pillow, NumPy), collates batches of 128 with a
``DataLoader`` (the quicker of 0 and 2 workers), and trains in float32. Both shift by up to an eighth and mirror (colour images), smooth
labels by 0.1, and follow one cycle of AdamW. One JSON line: seconds per epoch
(training alone), loss and accuracy on the same held-out rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from warmstart.core import registry
from warmstart.engine import device, idx, loop
from warmstart.engine.classes import Classes
from warmstart.engine.learner import Setting

BATCH, SMOOTHING = 128, 0.1


class Pictures(Dataset[Any]):
    """What a tutorial writes: open, change, to tensor, normalise."""

    def __init__(self, learner: Classes, sources: list[Any]) -> None:
        stream = learner.stream
        self.rows, self.sources = stream.train.tolist(), sources
        self.labels = learner.labels.tolist()
        self.mean, self.std = (np.array(learner.settings[k], np.float32)[:, None, None] for k in ("mean", "std"))
        self.flip = learner.settings["augment"]["flip"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        row = self.rows[i]
        source = self.sources[row]
        image = Image.open(source).convert("RGB") if isinstance(source, Path) else Image.fromarray(source)
        pad = max(1, image.width // 8)
        wide = Image.new(image.mode, (image.width + 2 * pad, image.height + 2 * pad))
        wide.paste(image, (pad, pad))
        left, top = torch.randint(0, 2 * pad + 1, (2,)).tolist()
        image = wide.crop((left, top, left + image.width, top + image.height))
        if float(torch.rand(())) < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        array = np.asarray(image, np.float32) / 255
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray((array - self.mean) / self.std)), self.labels[row]


def plain(learner: Classes, sources: list[Any], epochs: int) -> dict[str, Any]:
    """The plain loop on the learner's own network, which it trains in place."""
    data, module = Pictures(learner, sources), learner.module.train()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    best = min((_epochs(module, data, workers, 1, learner.settings), workers) for workers in (0, 2))
    module.load_state_dict(start)
    seconds = _epochs(module, data, best[1], epochs, learner.settings)
    return {"seconds_per_epoch": round(seconds, 3), "workers": best[1]}


def _epochs(module: Any, data: Pictures, workers: int, epochs: int, settings: dict[str, Any]) -> float:
    loader = DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    optimizer = torch.optim.AdamW(module.parameters(), settings["lr"], weight_decay=settings["weight_decay"])
    total = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=total, pct_start=0.25, cycle_momentum=False)
    began = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            logits = module.logits(module.embed({"pixel_values": images}))
            functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING).backward()
            optimizer.step()
            schedule.step()
    return (time.perf_counter() - began) / epochs


def ours(learner: Classes, setting: Setting, epochs: int) -> dict[str, Any]:
    """The package's loop."""
    outcome = loop.run(learner, loop.How(setting.folder / "run", 0, setting.device, setting.precision))
    return {"seconds_per_epoch": round(outcome.seconds / epochs, 3)}


def main() -> None:
    """One comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder of class folders, or an IDX file of images")
    parser.add_argument("--network", default="convnet")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    sources = sorted(p for p in Path(given.data).rglob("*") if p.is_file())
    if not sources:
        table = idx.read(Path(given.data))
        sources = table.columns["image"] if table is not None else []
    precision = device.dtype("auto", torch.device("cpu"))
    row: dict[str, Any] = {"data": Path(given.data).name, "network": given.network, "epochs": given.epochs, "precision": str(precision)}
    for name in ("plain", "ours"):
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(data=given.data, folder=Path(folder), size=given.size, precision=precision)
            probe = registry.create("objectives", "supervised", options={"family": given.network, "steps": 0}).prepare(setting)
            steps = given.epochs * (len(probe.stream.train) // BATCH)
            learner = registry.create("objectives", "supervised", options={"family": given.network, "steps": steps}).prepare(setting)
            found = plain(learner, sources, given.epochs) if name == "plain" else ours(learner, setting, given.epochs)
            measured = learner.finish(learner.module)
            row[name] = found | {
                key: [round(v, 3) for v in (measured[key].value, measured[key].low, measured[key].high)]
                for key in ("validation_loss", "validation_accuracy")
            }
    row["times_faster"] = round(row["plain"]["seconds_per_epoch"] / row["ours"]["seconds_per_epoch"], 2)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
