"""The transfer-learning tutorial of PyTorch in plain PyTorch: 25 epochs over folders of images, body frozen or not, tested after each.

Its numbers: batches of 4, SGD with a rate of 0.001 and momentum 0.9, the rate divided by 10 every 7 epochs; a random part of the image and
a mirror image half of the time to learn from, the middle of the image to test on. The batch norms stay as they are in both forms: those of
the imported network are folded into its weights, and statistics of four images would destroy it. Without them the rate of 0.001 is too much
where all layers move (the loss is not finite within the first epoch), so a smaller one can be given.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from common import answer
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForImageClassification

SIDE, SHORT = 224, 256


class Photographs(Dataset):
    """What the tutorial's ImageFolder and transforms give."""

    def __init__(self, folder: Path, random: bool) -> None:
        self.names = sorted(path.name for path in folder.iterdir())
        self.files = [(path, i) for i, name in enumerate(self.names) for path in sorted((folder / name).iterdir())]
        self.random = random

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[i]
        image = Image.open(path).convert("RGB")
        image = random_part(image) if self.random else middle(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return pixels / 127.5 - 1, label


def elapsed() -> float:
    """Seconds since this process began: the import of frameworks counts."""
    began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def random_part(image: Image.Image) -> Image.Image:
    """RandomResizedCrop and RandomHorizontalFlip."""
    width, height = image.size
    for _ in range(10):
        area, ratio = width * height * uniform(0.08, 1), math.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(uniform(0, width - w + 1)), int(uniform(0, height - h + 1))
            break
    else:
        w = h = min(width, height)
        left, top = (width - w) // 2, (height - h) // 2
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if uniform(0, 1) < 0.5 else image


def middle(image: Image.Image) -> Image.Image:
    """Resize and CenterCrop."""
    factor = SHORT / min(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((left, top, left + SIDE, top + SIDE))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("body", type=Path)
    options.add_argument("train", type=Path)
    options.add_argument("test", type=Path)
    options.add_argument("--frozen", action="store_true")
    options.add_argument("--epochs", type=int, default=25)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--lr", type=float, default=0.001)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.manual_seed(given.seed)
    train, test = Photographs(given.train, True), Photographs(given.test, False)
    model = AutoModelForImageClassification.from_pretrained(given.body, num_labels=len(train.names), ignore_mismatched_sizes=True)
    model.eval()
    if given.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=given.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    loaders = [DataLoader(data, batch_size=4, shuffle=True, num_workers=given.workers) for data in (train, test)]
    epochs = []
    for _ in range(given.epochs):
        for pixels, labels in loaders[0]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels).logits, labels).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            right = sum(int((model(pixels).logits.argmax(1) == labels).sum()) for pixels, labels in loaders[1])
        epochs.append({"seconds": elapsed(), "accuracy": right / len(test)})
    answer(accuracy=epochs[-1]["accuracy"], best=max(e["accuracy"] for e in epochs), epochs=epochs)


main()
