"""Connectionist temporal classification (Graves et al. 2006): the loss, the best path, and the best prefix with a language model.

Frame outputs are logits over classes: class 0 is the blank, class ``i + 1`` the i-th character. Frames that are padding are marked by
``PADDED`` in every class but the blank, so that outputs carry their own lengths. Shapes: B utterances, T frames, C classes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BLANK = 0
PADDED = -1e4
NEVER = -math.inf
UNLIKELY = math.log(1e-4)
"""A character is tried at a frame only where it is likelier than this."""

Floats = NDArray[np.float32]


def marked(logits: Tensor, real: Tensor | None) -> Tensor:
    """Logits (B, T, C) in float32 with the frames that are not ``real (B, T)`` marked as padding."""
    logits = logits.float()
    if real is None:
        return logits
    nothing = torch.full((logits.shape[2],), PADDED, device=logits.device)
    nothing[BLANK] = 0.0
    return torch.where(real.bool().unsqueeze(2), logits, nothing)


def frames(outputs: Tensor) -> Tensor:
    """Real frames of each utterance of marked logits: (B,)."""
    return (outputs[:, :, 1:] > PADDED / 2).any(2).sum(1)


def needed(classes: Sequence[int] | NDArray[np.int64]) -> int:
    """Fewest frames that can say these classes: one each, and a blank between two that are the same."""
    found = np.asarray(classes)
    return len(found) + int((found[1:] == found[:-1]).sum())


def loss(outputs: Tensor, targets: Sequence[NDArray[np.int64]]) -> Tensor:
    """Mean over utterances of the negative log likelihood per character; one whose frames are too few for its text counts nothing.

    Args:
        outputs: Marked logits (B, T, C).
        targets: Classes of each utterance, from 1 on.
    """
    sizes = torch.tensor([len(t) for t in targets])
    flat = torch.from_numpy(np.concatenate(targets))
    log_probabilities = functional.log_softmax(outputs, dim=2).transpose(0, 1)  # (T, B, C)
    found = functional.ctc_loss(
        log_probabilities, flat.to(outputs.device), frames(outputs).cpu(), sizes, blank=BLANK, reduction="none", zero_infinity=True
    )
    return (found / sizes.clamp_min(1).to(outputs.device)).mean()


def greedy(log_probabilities: Floats) -> tuple[list[int], float]:
    """The classes of the best path of one utterance (T, C), and how sure it is: the geometric mean of the probabilities of its
    characters, each at its surest frame (of the blanks, where there is no character)."""
    best = log_probabilities.argmax(1)
    if not len(best):
        return [], 1.0
    starts = np.concatenate([[0], np.flatnonzero(np.diff(best)) + 1])
    peaks = np.maximum.reduceat(log_probabilities[np.arange(len(best)), best], starts)
    spoken = best[starts] != BLANK
    return best[starts][spoken].tolist(), float(np.exp((peaks[spoken] if spoken.any() else peaks).mean()))


@dataclass(frozen=True)
class NGrams:
    """A language model of characters: interpolated n-grams (Witten & Bell 1991) of classes, ``order`` at most.

    ``counts`` maps a context (classes, joined by commas) to how often each class followed it; 0 stands for both ends of a text.
    """

    order: int
    classes: int
    counts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], *, order: int, classes: int) -> NGrams:
        """Counted in texts of classes."""
        counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        for text in texts:
            whole = [*[0] * (order - 1), *text, 0]
            for i in range(order - 1, len(whole)):
                for n in range(order):
                    counts[",".join(map(str, whole[i - n : i]))][str(whole[i])] += 1
        return cls(order, classes, {context: dict(after) for context, after in counts.items()})

    def log_probability(self, before: Sequence[int], symbol: int) -> float:
        """Natural log of the probability that ``symbol`` (0: the end) follows ``before``."""
        padded = [*[0] * (self.order - 1), *before]
        probability = 1 / self.classes
        for n in range(self.order):
            after = self.counts.get(",".join(map(str, padded[len(padded) - n :])) if n else "")
            if after is None:
                break
            total = sum(after.values())
            probability = (after.get(str(symbol), 0) + len(after) * probability) / (total + len(after))
        return math.log(probability)


def beam(
    log_probabilities: Floats, *, width: int, language: NGrams | None = None, weight: float = 0.5, reward: float = 0.5
) -> tuple[list[int], float]:
    """The likeliest text of one utterance (T, C) by prefix beam search (Hannun et al. 2014), and how sure the best path is.

    Args:
        log_probabilities: Of each frame.
        width: Prefixes that are kept after each frame.
        language: Model of the text, whose log probability counts ``weight`` times.
        weight: Of the language model.
        reward: Added for every character, against the language model's love of short texts.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}  # ends in a blank, ends in its last class
    prior: dict[tuple[int, ...], float] = {(): 0.0}

    def judged(prefix: tuple[int, ...]) -> float:
        if language is None:
            return 0.0
        if prefix not in prior:
            prior[prefix] = judged(prefix[:-1]) + weight * language.log_probability(prefix[:-1], prefix[-1]) + reward
        return prior[prefix]

    for row in log_probabilities:
        after: dict[tuple[int, ...], list[float]] = {}
        likely = [int(c) for c in np.flatnonzero(row > UNLIKELY) if c != BLANK]
        for prefix, (blank, spoken) in beams.items():
            both = _add(blank, spoken)
            here = after.setdefault(prefix, [NEVER, NEVER])
            here[0] = _add(here[0], both + float(row[BLANK]))
            if prefix:
                here[1] = _add(here[1], spoken + float(row[prefix[-1]]))
            for c in likely:
                longer = after.setdefault((*prefix, c), [NEVER, NEVER])
                longer[1] = _add(longer[1], (blank if prefix and prefix[-1] == c else both) + float(row[c]))
        best = sorted(after.items(), key=lambda item: -(_add(*item[1]) + judged(item[0])))[:width]
        beams = {prefix: (scores[0], scores[1]) for prefix, scores in best}

    def final(prefix: tuple[int, ...]) -> float:
        ends = weight * language.log_probability(prefix, 0) if language is not None else 0.0
        return _add(*beams[prefix]) + judged(prefix) + ends

    best_prefix: tuple[int, ...] = max(beams, key=final)
    return list(best_prefix), greedy(log_probabilities)[1]


def _add(a: float, b: float) -> float:
    """Log of the sum of two numbers that are given by their logs."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
