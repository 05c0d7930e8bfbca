"""one label of several per example"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.core.protocols import Link
from warmstart.core.report import Metric
from warmstart.engine import balance, calibration, metrics
from warmstart.engine.balance import Weighed

if TYPE_CHECKING:
    from torch import Tensor

COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)
NUMBERS_AS_CLASSES = 20  # half-star ratings in a text file are classes; hundreds of decimal numbers are measurements


@dataclass(frozen=True)
class Options:
    """What rows of rare classes count."""

    balance: Literal["auto", "none", "loss", "sampling"] = "auto"
    "auto: rows of rare classes weigh more in the loss where there are such classes; none; loss: always; sampling: drawn more often instead"
    balance_power: float = 0.5
    "how far: 1 makes every class weigh the same, 0.5 is the square root of that"


class Part(Weighed):
    """Single-label classification: softmax, cross entropy, accuracy.

    A raw label may be a string, a whole number (``1`` and ``1.0`` are the label ``"1"``) or a truth value.
    """

    name = "classification"
    link: Link = "softmax"
    main_metric = "accuracy"
    hf_problem_type = "single_label_classification"

    def __init__(self, options: Options) -> None:
        balance.check(self.name, options.balance_power)
        self.options = options

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether no value is a collection or names several labels with ``|``."""
        return not any(isinstance(v, COLLECTIONS) or (isinstance(v, str) and "|" in v) for v in values)

    def check(self, value: Any) -> str | None:
        """Why one raw label cannot be used, or None when it can."""
        if isinstance(value, COLLECTIONS):
            return "several labels where one is expected"
        return None if _name(value) else "missing label"

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The distinct labels, sorted as text; ``values`` have passed ``check``.

        Raises:
            DataError: All rows have the same label, or the labels are measurements rather than classes.
        """
        names = sorted({_name(v) for v in values})
        _require_classes(values, names)
        if len(names) < 2:
            label = f"only one label {names[0]!r}" if names else "no label"
            raise DataError(
                f"{label} in {len(values)} rows", "at least two different labels", "add rows of another label, or name another column"
            )
        return tuple(names)

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[np.int64]:
        """Class indices (N,); a label that is not among ``labels`` gives -1, which the metrics count as wrong."""
        index = {label: i for i, label in enumerate(labels)}
        return np.array([index.get(_name(v), -1) for v in values], np.int64)

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many rows carry each label that is not among ``labels``."""
        counts = Counter(_name(v) for v in values)
        return {name: counts[name] for name in sorted(counts.keys() - set(labels))}

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Mean cross entropy in nats; ``smoothing`` is the share of the target spread evenly over all classes (Szegedy et al. 2016)."""
        from torch.nn.functional import cross_entropy

        if weights is None:
            return cross_entropy(logits, targets, label_smoothing=smoothing)
        return (cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none") * weights).mean()

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Softmax, (N, C)."""
        return calibration.probabilities(logits, self.link)

    def decode(self, probabilities: NDArray[np.float64], labels: Sequence[str]) -> list[str]:
        """The most probable label of each row."""
        return [labels[i] for i in probabilities.argmax(axis=1)]

    def scores(self, probabilities: NDArray[np.float64], targets: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) 1 where the most probable label is the true one, else 0."""
        return metrics.correct(probabilities, targets)

    def metrics(self, probabilities: NDArray[np.float64], targets: NDArray[Any], *, seed: int) -> dict[str, Metric]:
        """Accuracy, macro F1, log loss, Brier score and calibration error; see ``engine.metrics.single_label``."""
        return metrics.single_label(probabilities, targets, seed=seed)


def _name(value: Any) -> str:
    """The label as text; empty when it is missing (None, NaN, NaT, NA, blank)."""
    try:
        missing = value is None or bool(value != value)
    except (TypeError, ValueError):  # pandas.NA and nested arrays have no truth value
        missing = True
    if missing:
        return ""
    if isinstance(value, float | np.floating | Decimal) and value == value // 1:
        return str(int(value))
    return str(value).strip()


def _require_classes(values: Sequence[Any], names: Sequence[str]) -> None:
    decimals: list[Any] = [v for v in values if isinstance(v, float | np.floating) and v != v // 1]
    if not decimals and len(names) > NUMBERS_AS_CLASSES and all(_is_decimal(n) for n in names):
        decimals = [n for n in names if "." in n]
    if decimals:
        raise DataError(
            f"the labels are decimal numbers such as {decimals[0]}, a regression target",
            "classes: text, whole numbers or true/false; regression is not supported yet",
            "name another label column, or turn the numbers into a few named ranges",
        )


def _is_decimal(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
