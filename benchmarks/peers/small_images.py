"""A ResNet of CIFAR-10 in plain PyTorch: frozen with logistic regression, or fine-tuned as a whole by the Trainer."""

from __future__ import annotations

import argparse
import csv
import tempfile
import time

import numpy as np
import torch
from common import accuracy, answer
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, 1 if narrow == wide else 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if x.shape != y.shape:
            pad = (y.shape[1] - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return functional.relu(x + y)


class ResNet(nn.Module):
    """As its state dict names it; He et al. 2016, option A."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16) for _ in range(depth)])
        self.layer2 = nn.Sequential(*[Block(16 if i == 0 else 32, 32) for i in range(depth)])
        self.layer3 = nn.Sequential(*[Block(32 if i == 0 else 64, 64) for i in range(depth)])
        self.linear = nn.Linear(64, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.linear(self.features(pixel_values))
        return {"logits": logits} if labels is None else {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def read(path: str) -> tuple[torch.Tensor, list[str]]:
    """Normalised pixels (N, 3, 32, 32) and labels."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [np.asarray(Image.open(row["image"]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for row in rows]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std, [row["label"] for row in rows]


def loaded(weights: str, classes: int) -> ResNet:
    """The pre-trained network with a new last layer."""
    tensors = load_file(weights)
    depth = len({name.split(".")[1] for name in tensors if name.startswith("layer1.")})
    model = ResNet(depth, classes)
    own = {f"linear.{name}": value for name, value in model.linear.state_dict().items()}
    model.load_state_dict({**tensors, **own})
    return model


def frozen(model: ResNet, train: torch.Tensor, test: torch.Tensor, labels: list[str], scaled: bool) -> list[str]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model.eval()
    with torch.inference_mode():
        known, asked = (torch.cat([model.features(part) for part in pixels.split(128)]).numpy() for pixels in (train, test))
    linear = LogisticRegression(max_iter=3000)
    return list((make_pipeline(StandardScaler(), linear) if scaled else linear).fit(known, labels).predict(asked))


def trainer(model: ResNet, train: torch.Tensor, test: torch.Tensor, labels: list[str], given: argparse.Namespace) -> list[str]:
    from transformers import Trainer, TrainingArguments

    names = sorted(set(labels))
    rows = [{"pixel_values": pixels, "labels": names.index(label)} for pixels, label in zip(train, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=128,
            learning_rate=given.lr,
            warmup_steps=0.1,  # below 1: a share of all steps
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            seed=given.seed,
        )
        taught = Trainer(model, arguments, train_dataset=rows)
        taught.train()
        found = taught.predict([{"pixel_values": pixels} for pixels in test]).predictions
    return [names[i] for i in np.asarray(found).argmax(1)]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("method", choices=["frozen", "trainer"])
    options.add_argument("--weights", required=True)
    options.add_argument("--train", required=True)
    options.add_argument("--test", required=True)
    options.add_argument("--scaled", action="store_true", help="standardise the features")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.manual_seed(given.seed)
    (train, labels), (test, truth) = read(given.train), read(given.test)
    model = loaded(given.weights, len(set(labels)))
    start = time.perf_counter()
    if given.method == "frozen":
        predicted = frozen(model, train, test, labels, given.scaled)
    else:
        predicted = trainer(model, train, test, labels, given)
    answer(accuracy=accuracy(predicted, truth), fit_seconds=time.perf_counter() - start)


main()
