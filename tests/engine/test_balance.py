"""Rows of rare classes: what they count, how often they are drawn, what is said of it, and what it does to a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warmstart.core import registry
from warmstart.core.errors import BadOption
from warmstart.engine import balance, dense_linear, fit, linear, sparse_linear
from warmstart.engine.clock import Pace
from warmstart.engine.job import Job
from warmstart.testing import tiny_bench


def task(name: str = "classification", **options: Any) -> Any:
    return registry.create("tasks", name, options=options)


TARGETS = np.repeat([0, 1], [190, 10])


def test_weights_are_those_of_the_formula_and_one_on_average() -> None:
    weights = balance.balance("loss", 1.0, TARGETS, 2).weights
    assert weights is not None
    assert weights[TARGETS == 1].sum() == pytest.approx(weights[TARGETS == 0].sum())  # power 1: classes weigh the same
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    rooted = balance.balance("loss", 0.5, TARGETS, 2).weights
    assert rooted is not None
    assert rooted[-1] / rooted[0] == pytest.approx(math.sqrt(19))


def test_a_row_of_several_labels_weighs_as_its_rarest() -> None:
    several = np.zeros((100, 3), np.float32)
    several[:90, 0], several[85:95, 1], several[:2, 2] = 1, 1, 1
    weights = balance.balance("loss", 0.5, several, 3).weights
    assert weights is not None
    assert weights[0] == weights.max() == weights[1]
    assert weights[86] == weights[94] > weights[50]
    even = 102 / 3
    assert weights[99] / weights[50] == pytest.approx(1 / math.sqrt(even / 90))  # no label: 1


def test_one_row_among_thousands_is_not_everything() -> None:
    targets = np.repeat([0, 1], [9_999, 1])
    weights = balance.balance("loss", 1.0, targets, 2).weights
    assert weights is not None
    assert weights.max() / weights.min() == pytest.approx(balance.HEAVIEST)


@pytest.mark.parametrize(("counts", "weighed"), [((100, 100), False), ((100, 30), False), ((190, 10), True), ((60, 60, 60, 3), True)])
def test_auto_weighs_rows_only_where_a_class_is_rare(counts: tuple[int, ...], weighed: bool) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    found = balance.balance("auto", 0.5, targets, len(counts))
    assert (found.weights is not None, found.drawn) == (weighed, False)
    assert balance.balance("none", 0.5, targets, len(counts)).weights is None
    assert balance.balance("sampling", 0.5, targets, len(counts)).drawn


def test_what_is_said() -> None:
    labels = ("common", "odd")
    told = task().balance_note(TARGETS, labels)
    assert told == (
        "a rare class: 'odd' (10 of 200 training rows); rows of rare classes weigh more in training, "
        "those of 'odd' 3.7 times the average; --set task.balance=none turns it off"
    )
    assert "drawn more in training, those of 'odd' 3.7 times as often" in task(balance="sampling").balance_note(TARGETS, labels)
    assert task(balance="none").balance_note(TARGETS, labels).endswith("rows count alike in training (task.balance = none)")
    assert task().balance_note(np.repeat([0, 1], 100), labels) == ""
    assert task("multilabel").balance_note(np.eye(2)[TARGETS], labels).startswith("a rare class: 'odd' (10 of 200")


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_wrong_options(name: str) -> None:
    with pytest.raises(BadOption, match="balance_power = 0"):
        task(name, balance_power=0.0)
    with pytest.raises(BadOption, match="sometimes"):
        task(name, balance="sometimes")


def test_rows_are_drawn_as_often_as_they_weigh() -> None:
    weights = balance.balance("sampling", 0.5, TARGETS, 2).weights
    assert weights is not None
    lengths = np.full(len(TARGETS), 5)
    passes = 40
    stream = np.concatenate(fit.order(lengths, fit.Schedule(epochs=passes), (1, 2), drawn=weights))
    often = np.bincount(stream, minlength=len(TARGETS)) / passes
    assert often[TARGETS == 1].mean() == pytest.approx(weights[-1], rel=0.05)
    assert len(stream) / passes == pytest.approx(len(TARGETS), rel=0.05)
    again = np.concatenate(fit.order(lengths, fit.Schedule(epochs=passes), (1, 2), drawn=weights))
    assert np.array_equal(stream, again)


def test_a_weighted_fit_is_the_fit_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=60) > 1).astype(np.int64)
    weights = np.where(y == 1, 3, 1).astype(np.float32)
    how: Any = {"link": "softmax", "n_classes": 2, "strength": 1e-2, "tolerance": 1e-9}
    weighed = linear.fit(torch.from_numpy(x), y, weights=torch.from_numpy(weights), **how)
    loss = task().loss
    logits = torch.from_numpy(x) @ weighed.weight.T + weighed.bias
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="none")
    assert float(loss(logits, torch.from_numpy(y), 0.0, weights=torch.from_numpy(weights))) == pytest.approx(
        float((each * torch.from_numpy(weights)).mean())
    )
    shares = (logits.softmax(1)[:, 1] * torch.from_numpy(weights)).sum()
    assert float(shares) == pytest.approx(float(weights[y == 1].sum()), rel=1e-2)  # the free bias matches the weighted share


@pytest.mark.parametrize("fitted", ["sparse", "dense"])
def test_hand_made_features_find_the_rare_class_more_often(fitted: str) -> None:
    from scipy import sparse

    rng = np.random.default_rng(1)
    y = TARGETS
    x = rng.normal(size=(200, 6)).astype(np.float32)
    x[y == 1, 0] += 1.5
    weights = balance.balance("loss", 1.0, y, 2).weights
    how: Any = {"link": "softmax", "n_classes": 2, "seed": 0}
    if fitted == "sparse":
        plain, weighed = (sparse_linear.fit(sparse.csr_matrix(x), y, weights=w, **how) for w in (None, weights))
    else:
        plain, weighed = (dense_linear.fit(x, y, weights=w, **how) for w in (None, weights))
    found = [int((model.logits(x)[y == 1].argmax(1) == 1).sum()) for model in (plain, weighed)]
    assert found[1] > found[0]


@pytest.mark.parametrize("strategy", ["linear_probe", "full"])
@pytest.mark.parametrize("method", ["loss", "sampling"])
def test_a_body_finds_the_rare_class_more_often(strategy: str, method: str, tmp_path: Path) -> None:
    found = {}
    for balanced in ("none", method):
        bench = tiny_bench(tmp_path / balanced)
        bench.targets = bench.targets.copy()
        common, rare = np.flatnonzero(bench.targets == 0), np.flatnonzero(bench.targets == 1)
        rows = np.sort(np.concatenate([common, rare[:4]]))
        bench.task = task(balance=balanced, balance_power=1.0)
        keep = [int(i) for i in rows]
        bench.inputs, bench.targets = [bench.inputs[i] for i in keep], bench.targets[rows]
        part = registry.create("strategies", strategy, options={"epochs": 6, "contrastive": 0} if strategy == "full" else {})
        train = np.arange(len(rows))
        bench.hint_rows = train
        plan = part.plan(bench, train=train, held=train[:0], seconds=math.inf)
        fitted = part.fit(bench, train, train[:0], Job("fold0", plan.settings, 0, Pace(math.inf)))
        logits = fitted.predictor.logits(bench.inputs)
        found[balanced] = float((logits[:, 1] - logits[:, 0]).mean())
    assert found[method] > found["none"]
