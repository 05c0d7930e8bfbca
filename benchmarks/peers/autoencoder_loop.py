"""The loop of the tutorials: a Dataset that opens every image with Pillow, a DataLoader, Adam, float32, an autoencoder.

The network is the same as that of ``warmstart pretrain --objective autoencoder``; so is the measure on held-out images.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from common import answer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Images(Dataset[torch.Tensor]):
    """Image files; one is opened and made a tensor from 0 to 1 each time it is asked for."""

    def __init__(self, folder: str, mode: str) -> None:
        self.files, self.mode = sorted(p for p in Path(folder).rglob("*") if p.is_file()), mode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.array(Image.open(self.files[index]).convert(self.mode))
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return torch.from_numpy(pixels.transpose(2, 0, 1)).float().div(255)


def dense(sizes: list[int]) -> nn.Module:
    """Dense layers down to a code and up again, ReLU between."""
    layers: list[nn.Module] = [nn.Flatten()]
    path = [*sizes, *reversed(sizes[:-1])]
    for i, (a, b) in enumerate(itertools.pairwise(path)):
        layers += [nn.Linear(a, b), *([nn.ReLU()] if i < len(path) - 2 else [])]
    return nn.Sequential(*layers)


def convolutional(channels: int, widths: list[int]) -> nn.Module:
    """Convolution, batch norm, ReLU, pooling; then enlarging and convolution."""
    layers: list[nn.Module] = []
    for a, b in zip([channels, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    out = [*reversed(widths[:-1]), channels]
    for i, (a, b) in enumerate(zip(reversed(widths), out, strict=True)):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), *([nn.ReLU()] if i < len(out) - 1 else [])]
    return nn.Sequential(*layers)


def main() -> None:
    """Train, timing each epoch, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--mode", default="L")
    parser.add_argument("--kind", choices=["dense", "convolutional"], default="dense")
    parser.add_argument("--hidden", default="256,64")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    train, test = Images(given.train, given.mode), Images(given.test, given.mode)
    widths, (channels, height, width) = [int(n) for n in given.hidden.split(",")], train[0].shape
    model = dense([channels * height * width, *widths]) if given.kind == "dense" else convolutional(channels, widths)
    distance = nn.functional.binary_cross_entropy_with_logits if given.kind == "dense" and channels == 1 else nn.functional.mse_loss
    loader = DataLoader(train, batch_size=128, shuffle=True, num_workers=given.workers, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(given.epochs):
        began = time.perf_counter()
        for x in loader:
            optimizer.zero_grad()
            loss = distance(model(x).view_as(x), x)
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    model.eval()
    with torch.no_grad():
        held = torch.stack([test[i] for i in range(len(test))])
        final = float(distance(model(held).view_as(held), held))
    answer(epoch_seconds=sorted(seconds)[len(seconds) // 2], validation_loss=final)


if __name__ == "__main__":
    main()
