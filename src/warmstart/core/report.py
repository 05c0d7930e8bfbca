"""What a run measured: numbers with intervals, the ladder, and everything the HTML page draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warmstart.core.words import counted


@dataclass(frozen=True)
class Metric:
    """One measured number with its 95 % interval over ``n`` examples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Rung:
    """One strategy that the ladder climbed, or passed over (``score`` is then None and ``note`` says why).

    ``score`` is the held-out value of the task's main metric with its 95 % interval; ``trainable`` counts parameters
    that moved; ``examples`` is the number of held-out predictions behind the score, of ``rows`` different rows. Where rungs were measured
    on different numbers of rows, ``expected`` is the value to be expected on the most rows that any of them answered: only by it they can
    be set side by side.
    """

    strategy: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    seconds_predicted: float | None = None
    seconds: float | None = None
    trainable: int = 0
    chosen: bool = False
    note: str = ""
    examples: int = 0
    rows: int = 0
    expected: Metric | None = None


@dataclass(frozen=True)
class Comparison:
    """Paired difference ``score(a) - score(b)`` on the same held-out rows, in the metric's own unit (0..1)."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    n: int
    sentence: str


@dataclass(frozen=True)
class CurvePoint:
    """Held-out score of a model trained on ``n_labels`` labelled rows, with its 95 % interval."""

    n_labels: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose top probability falls into one bin: their mean probability, and how often they were right."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class ClassScore:
    """How well a model knows one class, which ``rows`` of the measured rows carry.

    ``f1`` is of the rows that carry the class or were given it, whose number is its ``n``. ``precision`` is None where none was given it,
    ``recall`` where none carries it.
    """

    label: str
    rows: int
    f1: Metric
    precision: Metric | None
    recall: Metric | None


@dataclass(frozen=True)
class Neighbour:
    """A training example that lies close to an error in the frozen backbone's space (cosine ``similarity``).

    ``picture`` and ``sound`` are data URIs, empty where there is nothing to see or hear.
    """

    text: str
    label: str
    similarity: float
    picture: str = ""
    sound: str = ""


@dataclass(frozen=True)
class ErrorCase:
    """A confident mistake on held-out rows, with the nearest training examples.

    ``probability`` is that of the wrong decision, and ``decision`` says which it was where there are several. ``picture`` and ``sound`` are
    data URIs. ``figure`` is HTML that the task drew of it, with every text in it escaped; empty where it draws none.
    """

    text: str
    truth: str
    predicted: str
    probability: float
    row: int
    neighbours: tuple[Neighbour, ...] = ()
    picture: str = ""
    figure: str = ""
    sound: str = ""
    decision: str = ""


@dataclass(frozen=True)
class DataSummary:
    """What was read.

    ``lengths`` is a histogram of examples by length in ``unit``, ``[(from, to, count), ...]``, and ``tokens_mean`` its mean; ``left_out``
    maps a reason to a count; ``duplicates`` counts training rows whose input occurs earlier in the training rows; ``leaked`` counts test
    rows whose input also occurs in the training rows; ``conflicts`` counts duplicated inputs that carry different labels.
    """

    source: str
    columns: dict[str, str]
    rows_train: int
    rows_test: int
    labels: dict[str, int]
    split: str
    lengths: list[tuple[int, int, int]] = field(default_factory=list)
    tokens_mean: float = 0.0
    truncated: int = 0
    duplicates: int = 0
    conflicts: int = 0
    leaked: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    unit: str = "tokens"


@dataclass(frozen=True)
class Report:
    """Everything one ``adapt`` or ``evaluate`` run measured; the text, JSON and HTML forms are drawn from it.

    ``metrics`` are measured on ``measured_on`` ("test rows" or "cross-validated training rows"). ``main_metric`` names the one that
    the ladder compares. ``verdict`` holds plain sentences. ``classes`` are those of a classification, in the order of its labels.
    ``curves`` are precisions at recalls 0, .01, ... 1 of each class, or of those known worst.
    """

    verb: str
    model: str
    task: str
    backbone: str
    strategy: str
    main_metric: str
    measured_on: str
    metrics: dict[str, Metric]
    data: DataSummary
    seconds: float = 0.0
    budget_seconds: float | None = None
    peak_bytes: int = 0
    ladder: list[Rung] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    learning_curve: list[CurvePoint] = field(default_factory=list)
    learning_curve_sentence: str = ""
    confusion_labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    reliability: list[ReliabilityBin] = field(default_factory=list)
    classes: list[ClassScore] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    errors: list[ErrorCase] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seed: int = 0
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The whole report as plain JSON types (``report.json``)."""
        return dataclasses.asdict(self)

    def contract(self) -> dict[str, Any]:
        """The object that ``--json`` prints for ``adapt`` and ``evaluate``; names are fixed, more may be added."""
        names = ("model", "task", "backbone", "strategy", "seconds", "peak_bytes", "metrics", "ladder", "warnings")
        whole = self.as_dict()
        chosen = {n: whole[n] for n in names if not (n == "ladder" and self.verb != "adapt")}
        return {**chosen, "measured_on": self.measured_on, "comparisons": whole["comparisons"], "verdict": whole["verdict"]}

    def as_text(self) -> str:
        """The report as a person reads it on a terminal."""
        on = "" if self.backbone == "none" else f" on {self.backbone}"
        lines = [f"{self.strategy}{on}, measured on {self.measured_on}:"]
        lines += [f"  {name:<27} {show(m)}" for name, m in self.metrics.items()]
        if self.ladder:
            lines += ["", *_ladder_lines(self.ladder)]
        lines += ["", *self.verdict]
        return "\n".join(lines)


@dataclass(frozen=True)
class PretrainReport:
    """Everything one ``pretrain`` measured.

    ``curves`` maps a name ("loss", "validation/loss") to its steps and values. ``items`` says what was read ({"documents": 812}).
    ``count`` items of ``unit`` were seen in ``training_seconds``. ``pictures`` are titles with the pixels as a PNG data URI. ``events``
    tells of retreats from a bad step.
    """

    model: str
    objective: str
    modality: str
    start: str
    source: str
    parameters: int
    steps: int
    unit: str
    count: int
    seconds: float
    training_seconds: float
    metrics: dict[str, Metric]
    items: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    phases: list[tuple[str, int]] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    planned: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seed: int = 0
    warnings: list[str] = field(default_factory=list)
    verb: str = "pretrain"

    @property
    def per_second(self) -> float:
        """Items of ``unit`` seen in a second of training."""
        return self.count / self.training_seconds if self.training_seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The whole report as plain JSON types, pictures left out (``report.json``)."""
        return {**dataclasses.asdict(self), "pictures": [title for title, _ in self.pictures], "per_second": self.per_second}

    def contract(self) -> dict[str, Any]:
        """The object that ``--json`` prints for ``pretrain``; names are fixed, more may be added."""
        names = ("model", "objective", "steps", "seconds", "parameters", "metrics", "unit", "count", "per_second", "peak_bytes", "warnings")
        whole = self.as_dict()
        return {name: whole[name] for name in (*names, "events", "settings")}

    def as_text(self) -> str:
        """The report as a person reads it on a terminal."""
        lines = [
            f"{self.objective}: {self.parameters:,} parameters, {counted(self.steps, 'step')}, {self.count:,} {self.unit}"
            f" in {self.training_seconds:.0f} s ({self.per_second:,.0f} {self.unit}/s)"
        ]
        lines += [f"  {name:<27} {show(m)}" for name, m in self.metrics.items()]
        lines += [f"  note: {event}" for event in self.events]
        if self.samples:
            lines += ["", *(f"  | {line}" for line in self.samples[0].splitlines()[:12])]
        return "\n".join(lines)


def show(metric: Metric) -> str:
    """``0.912 [0.898, 0.925]  n=1821``."""
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]  n={metric.n}"


def _ladder_lines(rungs: Sequence[Rung]) -> list[str]:
    """The table of the rungs; with a column of the scores to be expected on the same rows where they were not measured on the same."""
    shared = next((r.expected.n for r in rungs if r.expected is not None), 0)
    width = max(14, *(len(r.strategy) for r in rungs))
    column = f" {f'on {shared:,}, about':>14}" if shared else ""
    head = f"  {'rung':<{width}} {'score':>7}  {'95 % interval':<16} {'rows':>6}{column} {'seconds':>8} {'predicted':>9} {'trainable':>11}"
    lines = [head, *(_rung_line(r, width, shared > 0) for r in rungs)]
    if shared:
        lines.append(f"  Rungs were measured on different numbers of rows; compare them by what is to be expected on {shared:,}.")
    return lines


def _rung_line(rung: Rung, width: int, shared: bool) -> str:
    if rung.score is None or rung.low is None or rung.high is None:
        return f"  {rung.strategy:<{width}} {'-':>7}  {rung.note}"
    interval = f"[{rung.low:.3f}, {rung.high:.3f}]"
    expected = f" {'-' if rung.expected is None else format(rung.expected.value, '.3f'):>14}" if shared else ""
    seconds = "-" if rung.seconds is None else f"{rung.seconds:.1f}"
    predicted = "-" if rung.seconds_predicted is None else f"{rung.seconds_predicted:.1f}"
    mark = "  <- chosen" if rung.chosen else f"  {rung.note}" if rung.note else ""
    numbers = f"{rung.score:>7.3f}  {interval:<16} {rung.rows:>6,}{expected} {seconds:>8} {predicted:>9} {rung.trainable:>11,}"
    return f"  {rung.strategy:<{width}} {numbers}{mark}"
