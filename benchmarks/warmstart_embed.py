"""warmstart's side of ``throughput.py``, in the project's own environment: seconds for embedding all texts, and whether they are right."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warmstart.core import registry
from warmstart.engine import backbone, device
from warmstart.engine.activations import Store
from warmstart.engine.backbone import Backbone
from warmstart.engine.workbench import Workbench

MAX_LENGTH = 256
"""Tokens that encode reads of a text, by the settings that come with the weights."""


@cache
def opened() -> Backbone:
    """The body in the precision that prefixes run in, opened once: encode is not charged for that either."""
    where = device.resolve("cpu")
    return backbone.load("minilm", device=where, precision=device.dtype("auto", where))


def warmstart_embed(texts: list[str]) -> NDArray[np.float32]:
    """Masked mean over the tokens of the last layer, (N, D): what the linear probe reads, tokenised, computed and put into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            inputs=[(text,) for text in texts],
            targets=np.zeros(len(texts), dtype=np.int64),
            labels=("one", "other"),
            task=registry.create("tasks", "classification"),
            modality=registry.create("modalities", "text"),
            backbone_name="minilm",
            device=device.resolve("cpu"),
            precision=opened().precision,
            max_length=MAX_LENGTH,
            seed=0,
            store=Store(Path(folder)),
        )
        bench.backbone = opened()
        states = bench.pooled(np.arange(len(texts)))  # (N, L + 1, D)
        return states[:, -1].numpy()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("texts", type=Path, help="a JSON list of strings")
    options.add_argument("--compare", type=Path, required=True, help="another method's embeddings of the first texts (.npy)")
    given = options.parse_args()
    texts = json.loads(given.texts.read_text())
    theirs = np.load(given.compare, allow_pickle=False)
    warmstart_embed(texts[: len(theirs)])
    start = time.perf_counter()
    ours = warmstart_embed(texts)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "cosine": mean_cosine(ours[: len(theirs)], theirs)}))


def mean_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean over rows of the cosine between rows: 1 when both methods compute the same embedding."""
    return float(np.mean(np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))))


if __name__ == "__main__":
    main()
