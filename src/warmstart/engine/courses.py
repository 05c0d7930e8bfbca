"""What a course of fine-tuning consists of, by the number of labelled rows and by how far the body is from home."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import CutRefused
from warmstart.engine import answers, batch_norms, batches, bodies, contrast, probe, structured
from warmstart.engine.workbench import Workbench

VERY_FEW = 200
"""Below so many training rows nothing follows the contrastive phase."""

FEW = 1000
"""Below so many training rows the contrastive phase pays."""

LR, FAR_LR, ANEW_LR = 2e-4, 1e-3, 3e-3
"""Peak learning rates of a body, of one whose final state does not suit the data (``first_points``), which has further to go, and of such
a one whose batch norms learn anew (``starts_anew``), which bear larger steps. With ten rows a class the second lost 5 points where a body
was at home (ResNet-20 of CIFAR-10 on CIFAR-10) and won 2 and 8 where it was not (on digits; YAMNet on spoken digits); reading more states
won 2 and 16 there, and soundnet on spoken digits 2 (one or two draws each). On digits the third won 2 more (two draws)."""

ANEW_EPOCHS = 16
"""Most passes where batch norms learn anew."""

CONTRASTIVE_STEPS = 40
"""Where the contrastive phase pays."""


@dataclass(frozen=True)
class Course:
    """Everything that decides one fine-tuning, with the seed. ``point``: train the blocks from here on (0: the whole trunk).

    ``contrastive`` steps of ``contrastive_rows`` come first, then ``epochs`` of cross entropy, up to ``most`` where they turn out quicker.
    The first head is fitted on ``probe_rows`` (None: all); a structured head is first trained alone for ``head_epochs``. Without ``lr`` it
    follows from what the first head reads.

    ``norms``: batch norms may learn anew (``starts_anew``). ``anew_epochs`` are the passes that then take the place of both phases
    (``suited``; 0: nothing does).
    """

    point: int
    epochs: float
    contrastive: int
    head: Literal["pooled", "native"]
    lr: float | None
    head_lr: float
    weight_decay: float
    smoothing: float
    probe_rows: int | None
    rows: int = 32
    most: float = 0.0
    head_epochs: float = 0.0
    contrastive_rows: int = contrast.ROWS
    norms: bool = False
    anew_epochs: float = 0.0


class Options(Protocol):
    """What the options of every such strategy have in common (None: chosen by the size of the data)."""

    @property
    def head(self) -> Literal["pooled", "native"]: ...
    @property
    def epochs(self) -> float | None: ...
    @property
    def contrastive(self) -> int | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def head_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def smoothing(self) -> float: ...


def course(bench: Workbench, options: Options, *, point: int, n_train: int, norms: bool = True) -> Course:
    """The course that the options and the number of labelled rows ask for, with no thought of time. ``norms``: batch norms move, too.

    Raises:
        CutRefused: The body cannot be trained.
    """
    if isinstance(bench.backbone.model, bodies.Sealed):
        raise CutRefused("the body can only be used frozen: its weights are not torch's", "a body of torch", "use linear_probe")
    able = getattr(bench.task, "link", "") == "softmax" and options.head == "pooled"  # it draws pooled states of one class together
    asked = options.contrastive if options.contrastive is not None else CONTRASTIVE_STEPS if n_train < FEW else 0
    contrastive = asked if able else 0
    epochs = options.epochs if options.epochs is not None else epochs_for(n_train, after_contrast=contrastive > 0)
    own: dict[str, Any] = {}
    if answers.is_structured(bench.task):
        epochs = options.epochs if options.epochs is not None else structured.body_epochs(bench.task, n_train)
        own = {"rows": structured.rows_at_once(bench.task), "head_epochs": bench.head_epochs}
    elif norms and options.head == "pooled":
        free = options.contrastive is None and options.epochs is None and n_train >= VERY_FEW
        own = {"norms": True, "anew_epochs": float(ANEW_EPOCHS) if free else 0.0}
    return Course(
        point=point,
        epochs=epochs,
        contrastive=contrastive,
        head=options.head,
        lr=options.lr,
        head_lr=options.head_lr,
        weight_decay=options.weight_decay,
        smoothing=options.smoothing,
        probe_rows=bench.probe_rows if (bench.probe_rows or 0) < len(bench.hint_rows) else None,
        **own,
    )


def first_points(bench: Workbench, n_train: int) -> tuple[int, ...]:
    """States that the head of a moving body reads: the final one, or of a convolutional body those that suit the data by the probe's
    search. Where these are more than the final one, the body comes from other data, and its upper blocks help little."""
    # Of MiniLM the final state alone: on SST-2 with four of six blocks trained for one epoch it gave 87.5 where all states gave 86.0.
    return probe.hint(bench, n_train)[0] if bench.backbone.convolutional else (bench.backbone.n_blocks,)


def far(bench: Workbench, n_train: int) -> bool:
    """Whether the body comes from other data than these, as told by the states that the probe's search chose."""
    return first_points(bench, n_train) != (bench.backbone.n_blocks,)


def starts_anew(bench: Workbench, how: Course, rows: NDArray[np.int64]) -> bool:
    """Whether the batch norms of the body learn by the statistics of each batch of these rows: where it is far from home, and a batch has
    rows enough for statistics."""
    if not how.norms or not batch_norms.among(bench.backbone.model):
        return False
    return float(bench.lengths[rows].max()) * batch_norms.LEAST_ROWS <= batches.TOKENS and far(bench, len(rows))


def suited(bench: Workbench, how: Course, rows: NDArray[np.int64]) -> Course:
    """The course as it suits the body: where batch norms learn anew, passes that take as long in place of the contrastive phase."""
    if not how.anew_epochs or not starts_anew(bench, how, rows):
        return how
    return replace(how, contrastive=0, epochs=how.anew_epochs, most=ANEW_EPOCHS)


def rate(bench: Workbench, how: Course, rows: NDArray[np.int64]) -> float:
    """Peak learning rate of the body on these rows."""
    if how.lr is not None:
        return how.lr
    if how.head == "native" or answers.is_structured(bench.task) or not far(bench, len(rows)):
        return LR
    return ANEW_LR if starts_anew(bench, how, rows) else FAR_LR


def epochs_for(n_train: int, *, after_contrast: bool) -> float:
    """Passes over the training rows: 3, or up to 8 where rows are few (about 300 steps of 32 rows).

    After a contrastive phase on fewer than ``VERY_FEW`` rows none: on TREC with eight labels a class they changed nothing.
    """
    if after_contrast and n_train < VERY_FEW:
        return 0.0
    return float(np.clip(300 * 32 / max(1, n_train), 3, 8))
