"""What a person looks at after the scores: the learning curve, the confident errors, and their nearest training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from warmstart.core.protocols import Input, Modality
from warmstart.core.report import CurvePoint, ErrorCase, Neighbour
from warmstart.engine import batches, linear, network, probe, statistics
from warmstart.engine.splits import Split
from warmstart.engine.workbench import Workbench

ERRORS = 12
NEIGHBOURS = 3
ERROR_SECONDS, NEIGHBOUR_SECONDS = 10.0, 5.0
"""Of a recording that can be played in a report."""
CURVE_POINTS = 6
CURVE_ROWS = 4000
"""The learning curve is drawn with at most so many rows: beyond, it is flat or the fits take longer than the answer is worth."""


def learning_curve(bench: Workbench, split: Split) -> tuple[list[CurvePoint], str]:
    """Held-out score of the frozen probe against the number of labels, and what it says about labelling more.

    Only rows whose states are in the store already take part, so it costs a few small fits.
    """
    train, held = bench.stored(split[0]), bench.stored(split[1])
    if len(train) < 4 * bench.n_classes or len(held) < 10:
        return [], ""
    train = probe.subset(bench, train, CURVE_ROWS)
    features, targets = bench.pooled(np.concatenate([train, held])), bench.targets
    chosen, strength = probe.hint(bench, len(train))
    x = features[:, list(chosen)].flatten(1)
    shuffled = np.random.default_rng(bench.seed).permutation(len(train))
    sizes = sorted({int(n) for n in np.geomspace(max(8, 2 * bench.n_classes), len(train), CURVE_POINTS)})
    found = []
    for n in sizes:
        rows = shuffled[:n]
        chosen_rows = train[rows]
        how: Any = {"link": bench.task.link, "n_classes": bench.n_classes, "strength": strength, "seed": bench.seed}
        head = linear.fit(x[rows], targets[chosen_rows], weights=bench.balance.of(chosen_rows), **how)
        scores = bench.task.scores(bench.task.probabilities(head.logits(x[len(train) :]).numpy()), targets[held])
        found.append((CurvePoint(n, float(scores.mean()), *statistics.mean_interval(scores)), scores))
    return [point for point, _ in found], _advice([p for p, _ in found], [s for _, s in found], bench)


def _advice(points: Sequence[CurvePoint], scores: Sequence[NDArray[np.float64]], bench: Workbench) -> str:
    if len(points) < 2:
        return ""
    last, before = points[-1], points[-2]
    gain, low, high = statistics.paired(scores[-1], scores[-2], seed=bench.seed)
    step = f"from {before.n_labels:,} to {last.n_labels:,} labels the frozen probe went "
    step += f"{100 * gain:+.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
    if low > 0:
        return f"More labels would help: {step}."
    if high < 0.01:
        return f"More labels of the same kind would hardly help: {step}."
    return f"Whether more labels would help cannot be told from the held-out rows: {step}."


def errors(
    values: Sequence[Input],
    probabilities: NDArray[np.float64],
    targets: NDArray[Any],
    *,
    labels: Sequence[str],
    rows: Sequence[int],
    modality: Modality,
    truths: Sequence[str],
    task: Any,
) -> list[tuple[int, ErrorCase]]:
    """The most confident mistakes, with the position of each in ``values``; of several labels the surest wrong decision counts."""
    if targets.ndim == 2:
        missed = np.abs((probabilities >= task.threshold) - targets) > 0
        doubts = np.where(missed, np.where(targets > 0, 1 - probabilities, probabilities), -1.0)  # (N, C) how sure of what is wrong
        confidence, decided = doubts.max(1), doubts.argmax(1)
        wrong = np.flatnonzero(missed.any(1))
    else:
        confidence, decided = probabilities.max(1), probabilities.argmax(1)
        wrong = np.flatnonzero(decided != targets)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:ERRORS]
    answers = task.decode(probabilities[worst], labels)
    return [
        (
            int(i),
            ErrorCase(
                modality.show(values[i]),
                " | ".join(sorted(name.strip() for name in truths[i].split("|"))) if targets.ndim == 2 else truths[i],
                " | ".join(answer) or "nothing" if targets.ndim == 2 else answer,
                float(confidence[i]),
                int(rows[i]),
                picture=modality.picture(values[i]),
                sound=_heard(modality, values[i], ERROR_SECONDS),
                decision="" if targets.ndim == 1 else f"{'without' if targets[i, decided[i]] > 0 else 'with'} {labels[decided[i]]}",
            ),
        )
        for i, answer in zip(worst, answers, strict=True)
    ]


def _heard(modality: Modality, value: Input, seconds: float) -> str:
    """The beginning of an input as a data URI, where it can be heard."""
    sound = getattr(modality, "sound", None)
    return "" if sound is None else str(sound(value, seconds))


def structured_errors(task: Any, modality: Modality, labels: Sequence[str], outcome: Any) -> list[ErrorCase]:
    """The worst answers of a structured task, with the figure that the task draws of each, where it does; then ``task.typical`` of those
    in the middle, where it asks for some."""
    scores = task.scores(outcome.probabilities, outcome.targets)
    ranked = [int(i) for i in np.argsort(scores, kind="stable") if scores[i] < 1]
    worst, typical = ranked[:ERRORS], getattr(task, "typical", 0)
    middle = max(ERRORS, len(ranked) // 2 - typical // 2)
    worst += ranked[middle : middle + typical]
    compact, values = outcome.probabilities[worst], [outcome.values[i] for i in worst]
    decoded = task.decode(compact, labels, values) if worst else []
    sure = task.confidence(compact) if hasattr(task, "confidence") else scores[worst]
    figure, told = getattr(task, "figure", None), getattr(task, "told", str)
    return [
        ErrorCase(
            modality.show(value),
            outcome.truths[i],
            told(answer)[:200],
            float(p),
            int(outcome.rows[i]),
            picture=modality.picture(value),
            figure="" if figure is None else figure(value, outcome.targets[i], row, labels),
            sound=_heard(modality, value, ERROR_SECONDS),
        )
        for i, value, row, answer, p in zip(worst, values, compact, decoded, sure, strict=True)
    ]


def neighbours(
    bench: Workbench, values: Sequence[Input], names: Sequence[str], *, own: NDArray[np.int64] | None = None
) -> list[tuple[Neighbour, ...]]:
    """The training examples nearest to each value by the cosine of the frozen body's pooled final state.

    The states of the training rows come from the store; those not in it are not looked at, nor is a value's ``own`` training row.
    """
    known = bench.stored(np.arange(len(bench.inputs)))
    if not len(known) or not values:
        return [() for _ in values]
    encoded = bench.encoder.encode(values)
    asked = torch.empty(len(values), bench.width)
    with torch.inference_mode():
        for part, length in batches.frozen([bench.encoder.size(e) for e in encoded], bench.backbone.model):
            chosen = bench.encoder.collate([encoded[int(i)] for i in part], length=length)
            batch = {k: v.to(bench.device) for k, v in chosen.items()}
            asked[part] = network.pooled_states(bench.backbone.frozen, bench.backbone.frozen_trunk, batch)[:, -1].cpu()
    asked = torch.nn.functional.normalize(asked, dim=1)
    similarity = torch.cat(
        [asked @ torch.nn.functional.normalize(bench.pooled(known[i : i + 4096])[:, -1], dim=1).T for i in range(0, len(known), 4096)],
        dim=1,
    )
    if own is not None:
        similarity[torch.from_numpy(own[:, None] == known[None, :])] = -2.0  # below any cosine
    best = similarity.topk(min(NEIGHBOURS, len(known)), dim=1)
    return [
        tuple(_neighbour(bench, int(known[j]), names[known[j]], float(s)) for s, j in zip(scores, where, strict=True) if s >= -1.5)
        for scores, where in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _neighbour(bench: Workbench, row: int, label: str, similarity: float) -> Neighbour:
    value = bench.inputs[row]
    heard = _heard(bench.modality, value, NEIGHBOUR_SECONDS)
    return Neighbour(bench.modality.show(value), label, similarity, bench.modality.picture(value), heard)
