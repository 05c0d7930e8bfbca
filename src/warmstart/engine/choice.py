"""Which rung to keep, and in plain words whether pre-training helped and how much of it was needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from warmstart.core.protocols import Task
from warmstart.core.report import Comparison, Metric, Rung
from warmstart.engine import answers, calibration, statistics
from warmstart.engine.ladder import Ladder
from warmstart.engine.step import Step

FEW_ROWS = 200
"""Below so many rows the prior decides, and the measurement only overrules it."""

TELLING = 0.02
"""A paired comparison whose 95 % interval reaches further than this in favour of the best is too weak to say that a cheaper rung is
as good: with eight rows a class it would call the majority class as good as anything."""


NEVER = 0.025
"""Chance, under the trend so far, that the rows still to come would make a rival measurably better, below which they are left out."""


@dataclass(frozen=True)
class Scored:
    """A climbed step and what its held-out predictions are worth: ``scores`` belong to ``rows`` (an example may occur repeatedly)."""

    step: Step
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    loss: float
    temperature: float

    def by_row(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Each different row once, with its mean score."""
        sums, counts = statistics.by_cluster(self.scores, self.rows)
        return np.unique(self.rows), sums / counts


@dataclass(frozen=True)
class Choice:
    """The chosen step, every rung as the report shows it, the comparisons, and the sentences."""

    chosen: Scored
    rungs: list[Rung]
    comparisons: list[Comparison]
    verdict: list[str]


def score(ladder: Ladder, step: Step) -> Scored:
    """What the held-out predictions of a step are worth."""
    bench = ladder.bench
    assert step.logits is not None  # noqa: S101 - only climbed steps are scored
    rows = ladder.held_rows(step.folds)
    targets = bench.targets[rows]
    if answers.is_structured(bench.task):
        scores = answers.structured(bench.task).scores(step.logits, targets)
        return Scored(step, rows, scores, 1 - float(scores.mean()), 1.0)
    temperature = calibration.fit_temperature(step.logits, targets, bench.task.link)
    probabilities = bench.task.probabilities(calibration.apply_temperature(step.logits, temperature).astype(np.float32))
    return Scored(step, rows, bench.task.scores(probabilities, targets), _log_loss(probabilities, targets), temperature)


def choose(ladder: Ladder, steps: Sequence[Step], *, prefer: str, eligible: Collection[str], rejected: Collection[str] = ()) -> Choice:
    """The best held-out score, as it is to be expected on the same rows; the cheapest to serve of those that a telling paired comparison
    cannot set apart from it.

    Args:
        prefer: ``cheapest`` takes the cheapest rung within one standard error of the best instead.
        eligible: Labels of the steps that may be chosen.
        rejected: Labels of those that are shown and no more: of a body that is not used, so that nothing is said of what they would do.
    """
    task, seed = ladder.bench.task, ladder.bench.seed
    scored = [score(ladder, step) for step in steps if step.folds]
    levels, differ = _levels(scored)
    candidates = [s for s in scored if s.step.label in eligible]
    few = len(ladder.bench.inputs) < FEW_ROWS
    best = _favourite(candidates, task, seed) if few else max(candidates, key=lambda s: (round(levels[s.step.label].value, 9), -s.loss))
    within = _within_one_error(candidates, best, levels)
    measured = [s for s in scored if s.step.strategy.serve_cost >= 1 and s.step.label not in differ]
    chosen = within if prefer == "cheapest" else best if few else _cheapest_equal(candidates, best, task, seed)
    baseline = _baseline(scored, chosen, levels)
    comparisons = _comparisons([s for s in scored if s.step.label not in rejected], chosen, baseline, task, seed)
    by_label = {s.step.label: s for s in scored}
    rungs = [
        _rung(by_label[step.label], levels[step.label] if differ else None, chosen=by_label[step.label] is chosen)
        if step.folds
        else Rung(step.label, note=step.note)
        for step in steps
    ]
    gap = levels[best.step.label].value - levels[chosen.step.label].value
    verdict = _verdict(chosen, (best, gap), comparisons, prefer, baseline=baseline, with_body=bool(measured))
    return Choice(chosen, rungs, comparisons, [*verdict, _cheapest(scored, within)])


def _levels(scored: Sequence[Scored]) -> tuple[dict[str, Metric], set[str]]:
    """The score to be expected of each step on the same rows, the most that any of them answered, and the steps that answered fewer.

    Rows differ in how hard they are, so a mean over fewer of them is put right by how the steps that answered all did on those.
    """
    known = {s.step.label: s.by_row() for s in scored}
    most = max(len(rows) for rows, _ in known.values())
    wide = [s for s in scored if len(known[s.step.label][0]) == most]
    helpers = [s for s in wide if s.step.strategy.order > 0] or wide  # the majority class says little of how hard a row is
    every = known[wide[0].step.label][0]
    easy = np.mean([known[s.step.label][1] for s in helpers], 0)
    found, fewer = {}, {s.step.label for s in scored} - {s.step.label for s in wide}
    for label, (rows, scores) in known.items():
        if label in fewer:
            found[label] = statistics.expected_mean(scores, easy[np.searchsorted(every, rows)], easy)
        else:
            found[label] = statistics.mean_metric(scores)
    return found, fewer


def _favourite(candidates: Sequence[Scored], task: Task, seed: int) -> Scored:
    """With very few rows: the worthiest rung that moves the body, else the probe, unless another is measurably better.

    Sixteen held-out answers are noise: they would as soon choose TF-IDF, which a pre-trained body beats on every set that was tried.
    """
    best = min(candidates, key=lambda s: (s.step.strategy.serve_cost < 1, s.step.strategy.worth or 9, -s.step.strategy.order))
    for other in candidates:
        if other is not best and _compare(other, best, task, seed).low > 0:
            best = other
    return best


def settled(ladder: Ladder, favourite: Step, folds: int, rivals: Sequence[Step]) -> bool:
    """Whether further splits can hardly let a rival overrule the favourite of the prior (very few rows).

    Stochastic curtailment (Lan, Simon & Halperin 1982): the difference on all rows of one repeat is predicted from those seen, with the
    variance of drawing the others; a rival overrules only where its interval lies above zero. One win and one loss are added to the
    rows seen, so that few rows without any difference do not look certain.
    """
    every = len(np.unique(ladder.held_rows(len(ladder.splits))))
    rows = ladder.held_rows(folds)
    mine = _row_scores(ladder, favourite, len(rows))
    for rival in rivals:
        theirs = _row_scores(ladder, rival, len(rows))
        n = min(len(mine), len(theirs))
        gaps = np.concatenate([theirs[:n] - mine[:n], [1.0, -1.0]])
        mean, deviation = gaps.mean(), gaps.std(ddof=1)
        hopeful = mean + scipy.stats.norm.isf(NEVER) * deviation * math.sqrt(max(0.0, 1 / len(gaps) - 1 / (every + 2)))
        if hopeful > scipy.stats.t.isf(0.025, every - 1) * deviation / math.sqrt(every):
            return False
    return True


def _row_scores(ladder: Ladder, step: Step, n: int) -> NDArray[np.float64]:
    """Scores of the first held rows; a temperature changes no score."""
    assert step.logits is not None  # noqa: S101 - only climbed steps are compared
    logits, task = step.logits[:n], ladder.bench.task
    return task.scores(answers.probabilities(task, logits), ladder.bench.targets[ladder.held_rows(step.folds)[: len(logits)]])


def _compare(a: Scored, b: Scored, task: Task, seed: int) -> Comparison:
    n = min(len(a.scores), len(b.scores))  # leading held rows are the same
    rows = a.rows[:n]
    clusters = rows if len(np.unique(rows)) < n else None
    return statistics.compare(
        a.step.label, b.step.label, a.scores[:n], b.scores[:n], clusters=clusters, seed=seed, metric_name=task.main_metric
    )


def _cost(scored: Scored) -> tuple[float, int, int]:
    """From cheap to dear; by nothing that a clock measured, so that a recipe run again chooses the same."""
    return scored.step.strategy.serve_cost, scored.step.strategy.order, scored.step.trainable


def _cheapest_equal(candidates: Sequence[Scored], best: Scored, task: Task, seed: int) -> Scored:
    for cheaper in sorted(candidates, key=_cost):
        if cheaper.step.strategy.serve_cost >= best.step.strategy.serve_cost:
            break
        found = _compare(best, cheaper, task, seed)
        if found.low <= 0 and found.high <= TELLING:
            return cheaper
    return best


def _within_one_error(candidates: Sequence[Scored], best: Scored, levels: Mapping[str, Metric]) -> Scored:
    """The cheapest rung whose score is within one standard error of the best (Breiman et al. 1984)."""
    repeated = len(np.unique(best.rows)) < len(best.rows)
    error = statistics.standard_error(best.scores, best.rows if repeated else None)
    return min((s for s in candidates if levels[best.step.label].value - levels[s.step.label].value <= error), key=_cost)


def _baseline(scored: Sequence[Scored], chosen: Scored, levels: Mapping[str, Metric]) -> Scored | None:
    """What tells whether pre-training helped: the better of the rungs without a body (on equal scores classic), where classic is one."""
    without = [s for s in scored if s.step.strategy.serve_cost < 1]
    if chosen in without or not any(s.step.strategy.name == "classic" for s in without):
        return None
    return max(without, key=lambda s: (round(levels[s.step.label].value, 9), s.step.strategy.order))


def _comparisons(scored: Sequence[Scored], chosen: Scored, baseline: Scored | None, task: Task, seed: int) -> list[Comparison]:
    """The chosen rung with the baseline, and with the next cheaper rung that has a body; where there is neither, with the majority."""
    cheaper = [s for s in scored if _cost(s) < _cost(chosen) and s.step.strategy.serve_cost >= 1]
    others = [*([baseline] if baseline is not None else []), *([max(cheaper, key=_cost)] if cheaper else [])]
    if not others:
        others = [s for s in scored if s.step.strategy.name == "majority" and s is not chosen]
    return [_compare(chosen, other, task, seed) for other in others]


def _verdict(
    chosen: Scored,
    first: tuple[Scored, float],
    comparisons: Sequence[Comparison],
    prefer: str,
    *,
    baseline: Scored | None,
    with_body: bool,
) -> list[str]:
    """What is said; ``first`` is the best and how much more is expected of it than of the chosen one."""
    name, (best, gap) = chosen.step.label, first
    said = []
    by_other = {c.b: c for c in comparisons}
    if baseline is not None:
        found = by_other.pop(baseline.step.label)
        if found.low > 0:
            said.append(f"Pre-training helped: {found.sentence}.")
        elif found.high < 0:
            said.append(f"Pre-training hurt: {found.sentence}.")
        else:
            said.append(f"Whether pre-training helped cannot be told from these rows: {found.sentence}.")
    elif chosen.step.strategy.name == "classic" and with_body and (best is chosen or prefer != "cheapest"):
        said.append("Pre-training was not needed: the classic model without any pre-trained body does as well on these rows.")
    for other in by_other.values():
        if other.low > 0:
            said.append(f"{name} was needed: {other.sentence}.")
        else:
            said.append(f"{other.b} might have been enough: {other.sentence}.")
    if best is not chosen and gap > 0:
        why = "the cheapest within one standard error was asked for" if prefer == "cheapest" else "it is cheaper to serve"
        said.append(f"{best.step.label} scored higher by {100 * gap:.1f} points, but {why}.")
    return said


def _cheapest(scored: Sequence[Scored], within: Scored) -> str:
    """The last sentence: what would do, or that there was nothing to choose from."""
    if len(scored) == 1:
        return f"{within.step.label} is the only rung that was climbed, so it is compared with nothing."
    return f"The cheapest rung within one standard error of the best is {within.step.label}."


def _rung(scored: Scored, expected: Metric | None, *, chosen: bool) -> Rung:
    """A climbed rung for the report; ``expected`` where the rungs did not answer the same rows."""
    step = scored.step
    distinct = len(np.unique(scored.rows))
    low, high = statistics.mean_interval(scored.scores, scored.rows if distinct < len(scored.rows) else None)
    return Rung(
        strategy=step.label,
        score=float(scored.scores.mean()),
        low=low,
        high=high,
        seconds_predicted=step.predicted or None,
        seconds=step.seconds,
        trainable=step.trainable,
        chosen=chosen,
        note=step.note,
        examples=len(scored.scores),
        rows=distinct,
        expected=expected,
    )


def _log_loss(probabilities: NDArray[np.float64], targets: NDArray[Any]) -> float:
    """Mean negative log probability of the truth, to break ties of the main metric."""
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    if targets.ndim == 2:
        return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
    return float(-np.log(p[np.arange(len(p)), targets]).mean())
