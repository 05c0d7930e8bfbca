"""any number of labels per example: a list, or names separated by |"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BadOption, DataError
from warmstart.core.protocols import Link
from warmstart.core.report import Metric
from warmstart.engine import balance, calibration, metrics
from warmstart.engine.balance import Weighed

if TYPE_CHECKING:
    from torch import Tensor

COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


@dataclass(frozen=True)
class Options:
    """How probabilities become labels, and what rows of rare ones count."""

    threshold: float = 0.5
    "Least probability at which a label is predicted, between 0 and 1."
    balance: Literal["auto", "none", "loss", "sampling"] = "auto"
    "auto: rows of rare classes weigh more in the loss where there are such classes; none; loss: always; sampling: drawn more often instead"
    balance_power: float = 0.5
    "how far: 1 makes every class weigh the same, 0.5 is the square root of that"


class Part(Weighed):
    """Multi-label classification: sigmoid, binary cross entropy, mean F1 per example.

    A raw label is a collection of names or one string with names separated by ``|``. An empty collection means "no labels", which is an
    answer; None, NaN and an empty string mean that the answer is missing. Labels that a model was not trained on are not among its
    targets: ``encode`` leaves them out and ``unknown`` counts them.
    """

    name = "multilabel"
    link: Link = "sigmoid"
    main_metric = "example_f1"
    hf_problem_type = "multi_label_classification"

    def __init__(self, options: Options) -> None:
        if not 0 < options.threshold < 1:
            raise BadOption(f"multilabel.threshold = {options.threshold}", "a probability between 0 and 1", "correct the value")
        balance.check(self.name, options.balance_power)
        self.options, self.threshold = options, options.threshold

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether some value is a collection or names several labels with ``|``."""
        return any(isinstance(v, COLLECTIONS) or (isinstance(v, str) and "|" in v) for v in values)

    def check(self, value: Any) -> str | None:
        """Why one raw label cannot be used, or None when it can."""
        if isinstance(value, COLLECTIONS):
            return "missing label in the list" if any(not _name(item) for item in value) else None
        return None if _name(value) else "missing label"

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The distinct labels, sorted as text; ``values`` have passed ``check``.

        Raises:
            DataError: All rows have the same labels, so that there is nothing to tell apart.
        """
        rows = {frozenset(_names(v)) for v in values}
        if len(rows) < 2:
            same = sorted(next(iter(rows), frozenset()))
            given = f"only one label {same[0]!r}" if len(same) == 1 else f"the same labels {same}" if same else "no label"
            raise DataError(
                f"{given} in {len(values)} rows", "rows that differ in their labels", "add rows with other labels, or name another column"
            )
        return tuple(sorted(frozenset().union(*rows)))

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[np.float32]:
        """Zeros and ones (N, C); a label that is not among ``labels`` leaves no trace, see ``unknown``."""
        index = {label: i for i, label in enumerate(labels)}
        targets = np.zeros((len(values), len(labels)), np.float32)
        for row, value in enumerate(values):
            targets[row, [index[name] for name in _names(value) if name in index]] = 1
        return targets

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many rows carry each label that is not among ``labels``."""
        counts = Counter(name for value in values for name in set(_names(value)))
        return {name: counts[name] for name in sorted(counts.keys() - set(labels))}

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Binary cross entropy in nats, mean over labels and rows; ``smoothing`` moves every target towards one half."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        each = None if weights is None else weights[:, None]
        return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2, weight=each)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sigmoid of each label alone, (N, C)."""
        return calibration.probabilities(logits, self.link)

    def decode(self, probabilities: NDArray[np.float64], labels: Sequence[str]) -> list[list[str]]:
        """The labels of each row with at least the threshold's probability; possibly none."""
        return [[label for label, p in zip(labels, row, strict=True) if p >= self.threshold] for row in probabilities]

    def scores(self, probabilities: NDArray[np.float64], targets: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) F1 of each row's labels, 1 when there are none and none is predicted."""
        return metrics.example_f1(probabilities, targets, self.threshold)

    def metrics(self, probabilities: NDArray[np.float64], targets: NDArray[Any], *, seed: int) -> dict[str, Metric]:
        """Example F1, subset accuracy, micro and macro F1, log loss, Brier score, calibration error: ``engine.metrics.multi_label``."""
        return metrics.multi_label(probabilities, targets, threshold=self.threshold, seed=seed)


def _names(value: Any) -> list[str]:
    """The label names of one row."""
    if isinstance(value, str):
        return [name for item in value.split("|") if (name := item.strip())]
    return [_name(item) for item in (value if isinstance(value, COLLECTIONS) else (value,))]


def _name(item: Any) -> str:
    """The label as text; empty when it is missing (None, NaN, NaT, NA, blank)."""
    try:
        missing = item is None or bool(item != item)
    except (TypeError, ValueError):  # pandas.NA and nested arrays have no truth value
        missing = True
    if missing:
        return ""
    if isinstance(item, float | np.floating) and item == item // 1:
        return str(int(item))
    return str(item).strip()
