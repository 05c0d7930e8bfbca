"""What a body is worth on few labels, and a small language and small textures in which there is something to learn without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOPICS, CONTENT, FUNCTION = 3, 30, 12
"""Topics of the language, words of each topic, and words of all."""


def documents(n: int, *, seed: int = 0) -> list[str]:
    """``n`` documents of two to five sentences, each about one topic: what stands together is what tells words of a topic from others."""
    random = np.random.default_rng(seed)
    return [" ".join(_sentence(int(topic), random) for _ in range(random.integers(2, 6))) for topic in random.integers(0, TOPICS, n)]


def labelled(n: int, *, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """``n`` single sentences, and their topics in turn. A few of them hold only a few of the words of a topic."""
    random, labels = np.random.default_rng(seed), np.arange(n) % TOPICS
    return [_sentence(int(topic), random) for topic in labels], labels


def _sentence(topic: int, random: np.random.Generator) -> str:
    """Words of the topic, each after a word that every topic has."""
    words = []
    for _ in range(int(random.integers(3, 6))):
        words += [_word(TOPICS * CONTENT + int(random.integers(FUNCTION))), _word(topic * CONTENT + int(random.integers(CONTENT)))]
    return " ".join(words).capitalize() + "."


def _word(number: int) -> str:
    """A pronounceable word that belongs to this number."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    first, second = divmod(number * 37 % 4_900, 70)
    return syllables[first] + syllables[second]


def textures(n: int, *, kinds: int = 4, side: int = 16, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, side, side, 3) of waves whose direction is the label; phase, colours, contrast and noise say nothing of it."""
    random, labels = np.random.default_rng(seed), np.arange(n) % kinds
    y, x = np.mgrid[:side, :side]
    images = np.empty((n, side, side, 3))
    for i, label in enumerate(labels):
        angle = np.pi * (label + random.uniform(-0.2, 0.2)) / kinds
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * random.uniform(1.2, 1.6) + random.uniform(0, 2 * np.pi))
        images[i] = random.uniform(60, 196, 3) + wave[..., None] * random.uniform(20, 60, 3) + random.normal(0, 12, (side, side, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def text_states(body: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Mean of the last states over the tokens of each text, (N, D), by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(str(body)), AutoModel.from_pretrained(str(body)).eval()
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = model(**batch)[0], batch["attention_mask"][:, :, None]
    found: NDArray[np.float32] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return found


def gains(codes: Sequence[NDArray[np.float32]], labels: NDArray[np.int64], *, per_class: int = 2, draws: int = 10) -> list[float]:
    """By how much a linear classifier on few labels is more often right on the second codes (N, D) than on the first, for each draw."""
    from sklearn.linear_model import LogisticRegression

    found = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        train = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
        test = np.setdiff1d(order, train)
        first, second = (LogisticRegression(max_iter=500).fit(x[train], labels[train]).score(x[test], labels[test]) for x in codes)
        found.append(second - first)
    return found
