"""What a task must offer whose answer is not one row of class logits; see ``core.protocols`` for what all parts have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from warmstart.core.protocols import Input
from warmstart.core.report import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from warmstart.engine.workbench import Workbench


@runtime_checkable
class StructuredTask(Protocol):
    """A task whose answer is not one row of class logits: text, boxes, maps. Its head reads unpooled states.

    Answers are kept in *compact* form: (N, L, ...) numbers, padded with -1 along the second axis where it differs between batches.

    Optional (a table is in docs/extending.md): ``size(body) -> str`` (for ``modality.size``); ``check_body(body)``; ``by_class``,
    ``curves``, ``told`` (in the report); ``column_names`` and ``unknown_name`` (of columns of raw targets, of what ``unknown`` counts);
    ``rows`` (of a training batch),
    ``epochs(n_train)`` and ``head_epochs(n_train)`` (passes over the training rows with the body, and of a head alone);
    ``confidence(compact) -> (N,)``; ``speed(seconds, values) -> dict[str, Metric]``; ``figure(value, target, compact, labels) -> str``
    (HTML for the report, its texts escaped); ``check_pair(value, target)`` (why a usable input and a usable target do not belong together);
    ``pair_notes(values, targets)`` (what is odd of pairs that are used); ``wanted`` (what is expected of raw targets, for errors);
    ``pieces(value)`` with ``rejoined(compact, counts)`` (long inputs are answered piece by piece), and ``modality_options`` that a model is
    asked with where the user gave no others; ``confusion(compact, targets, labels) -> (names, counts)``;
    ``typical`` (how many middling answers the report shows after the worst);
    ``load(values, folder=) -> list`` (raw targets of what stands in a table, before they are checked);
    ``write(compact, labels, values, files) -> list[dict]`` (answers as ``engine.answers.Files``, and what ``predict`` tells of each);
    and a model without a body, by
    ``plan_classic``, ``fit_classic`` and ``load_classic``, whose predictor writes ``classic.json`` with ``{"task": name}``.
    """

    name: str
    structured: bool
    modality: str
    main_metric: str

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether these raw values of a label column look like this task's targets."""
        ...

    def check(self, value: Any) -> str | None:
        """Why one raw target cannot be used, or None when it can."""
        ...

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """What targets are made of, in an order of their own: classes of boxes or cells, characters."""
        ...

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[Any]:
        """Targets: (N,) objects."""
        ...

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many rows (or parts of them) carry each label that is not among ``labels``."""
        ...

    def counts(self, targets: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How often what is in the targets, for the report."""
        ...

    def head(self, bench: Workbench, rows: NDArray[np.int64]) -> Any:
        """An untrained ``engine.network.StructuredHead`` for the bench's body, which is to learn from these rows.

        Raises:
            CutRefused: The body has no states that it can read.
        """
        ...

    def build_head(self, settings: Mapping[str, Any]) -> Any:
        """The head that has these ``settings``, untrained."""
        ...

    def constant(self, targets: Sequence[Any]) -> NDArray[Any]:
        """The best answer that is the same for every input, in compact form without the first axis."""
        ...

    def decode(self, compact: NDArray[Any], labels: Sequence[str], values: Sequence[Input]) -> list[Any]:
        """Each answer as plain JSON values."""
        ...

    def scores(self, compact: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) scores between 0 and 1, whose mean the ladder compares."""
        ...

    def metrics(self, compact: NDArray[Any], targets: NDArray[Any], *, seed: int) -> dict[str, Metric]:
        """Every metric of the task, each with a 95 % interval over examples."""
        ...
