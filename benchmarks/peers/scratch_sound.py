"""A convolutional network on log-mel frames in plain PyTorch, from random weights; accuracy on test rows."""

from __future__ import annotations

import argparse
import csv
import math
import time

import numpy as np
import soundfile
import torch
from common import accuracy, answer
from torch import nn
from torch.nn import functional

RATE, WINDOW, HOP, BANDS, FRAMES = 8000, 200, 80, 40, 100
"""Of FSDD's recordings; a second of frames is enough for a digit."""


def bank() -> torch.Tensor:
    """Triangles between equal steps of the mel scale: (bins, BANDS)."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = torch.linspace(0, RATE / 2, 129)[:, None]
    rise, fall = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)


def read(path: str) -> tuple[torch.Tensor, list[str]]:
    """Log-mel frames (N, 1, FRAMES, BANDS), cut or filled up with silence, and labels."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    mel, frames = bank(), []
    for row in rows:
        samples = torch.from_numpy(soundfile.read(row["audio"], dtype="float32")[0])
        samples = functional.pad(samples, (0, max(0, WINDOW - len(samples))))
        power = torch.stft(samples, 256, HOP, WINDOW, torch.hann_window(WINDOW), return_complex=True).abs().square().T  # (T, bins)
        found = torch.log(power @ mel + 1e-6)[:FRAMES]
        frames.append(functional.pad(found, (0, 0, 0, FRAMES - len(found)), value=math.log(1e-6)))
    return torch.stack(frames)[:, None], [row["label"] for row in rows]


def network(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for narrow, wide in ((1, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(narrow, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, classes))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True)
    options.add_argument("--test", required=True)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.manual_seed(given.seed)
    (train, labels), (test, truth) = read(given.train), read(given.test)
    names = sorted(set(labels))
    targets = torch.tensor([names.index(label) for label in labels])
    mean, std = train.mean((0, 2), keepdim=True), train.std((0, 2), keepdim=True)
    train, test = (train - mean) / std, (test - mean) / std
    model = network(len(names))
    batches = math.ceil(len(train) / 32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=given.epochs * batches)
    start = time.perf_counter()
    for _ in range(given.epochs):
        for rows in torch.randperm(len(train)).split(32):
            shifts = torch.randint(-10, 11, (len(rows),)).tolist()  # by up to a tenth of a second
            pixels = torch.stack([torch.roll(x, n, 1) for x, n in zip(train[rows], shifts, strict=True)])
            optimizer.zero_grad()
            functional.cross_entropy(model(pixels), targets[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    fit_seconds = time.perf_counter() - start
    model.eval()
    with torch.inference_mode():
        found = np.concatenate([model(part).argmax(1).numpy() for part in test.split(256)])
    answer(accuracy=accuracy([names[i] for i in found], truth), fit_seconds=fit_seconds)


main()
