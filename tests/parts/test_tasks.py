"""Raw labels become targets, losses, decisions and metrics."""

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from warmstart.core.errors import BadOption, DataError
from warmstart.core.protocols import Task
from warmstart.core.registry import create, parts


@pytest.fixture
def one() -> Any:
    return create("tasks", "classification")


@pytest.fixture
def many() -> Any:
    return create("tasks", "multilabel")


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_tasks_obey_the_protocol(name: str) -> None:
    task = create("tasks", name)
    assert isinstance(task, Task)
    assert task.name == name
    probabilities = task.probabilities(np.array([[2, -1], [-1, 2], [0, 1]], np.float32))
    targets = task.encode(["a", "b", "a"], ("a", "b"))
    metric = task.metrics(probabilities, targets, seed=0)[task.main_metric]
    assert metric.value == pytest.approx(task.scores(probabilities, targets).mean())


def test_listing_tasks_shows_help_and_options_and_importing_them_spares_torch() -> None:
    assert parts("tasks")["classification"].help == "one label of several per example"
    threshold = parts("tasks")["multilabel"].options[0]
    assert (threshold.name, threshold.type, threshold.default) == ("threshold", "float", "0.5")
    assert threshold.help.startswith("Least probability")
    code = "import sys, warmstart.parts.tasks.classification, warmstart.parts.tasks.multilabel; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("values", "which"),
    [
        (["a", "b"], "classification"),
        ([1, 2.0, True], "classification"),
        ([None, "a"], "classification"),
        (["a|b", "c"], "multilabel"),
        ([["a"], []], "multilabel"),
        ([None, ("a", "b")], "multilabel"),
        ([np.array(["a"])], "multilabel"),
        ([{"a"}], "multilabel"),
    ],
)
def test_exactly_one_task_matches(values: list[Any], which: str) -> None:
    assert [name for name in parts("tasks") if create("tasks", name).matches(values)] == [which]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), "", "  "])
def test_missing_labels(one: Any, many: Any, missing: Any) -> None:
    assert one.check(missing) == "missing label"
    assert many.check(missing) == "missing label"
    assert many.check(["a", missing]) == "missing label in the list"


def test_missing_pandas_value(one: Any) -> None:
    pandas = pytest.importorskip("pandas")
    assert one.check(pandas.NA) == "missing label"


def test_present_labels(one: Any, many: Any) -> None:
    for value in ("a", 0, 0.0, False, np.int64(0), np.bool_(False)):
        assert one.check(value) is None
        assert many.check(value) is None
    assert many.check([]) is None, "no labels is an answer"
    assert one.check(["a"]) == "several labels where one is expected"


def test_equal_labels_of_other_types_are_one_label(one: Any) -> None:
    values = [1, 1.0, np.float32(1), Decimal("1.0"), "1", " 1 ", np.int8(2), True, np.bool_(True)]
    assert one.labels(values) == ("1", "2", "True")
    assert one.encode(values, ("1", "2", "True")).tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2]


def test_unknown_labels_are_countable(one: Any, many: Any) -> None:
    assert one.encode(["a", "x", "x", "y"], ("a", "b")).tolist() == [0, -1, -1, -1]
    assert one.unknown(["a", "x", "x", "y"], ("a", "b")) == {"x": 2, "y": 1}
    assert many.encode(["a|x", ["b", "x"], "y"], ("a", "b")).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert many.unknown(["a|x|x", ["b", "x"], "y"], ("a", "b")) == {"x": 2, "y": 1}


def test_multilabel_targets(many: Any) -> None:
    values = [" b | a |", ["a", 1.0], [], {"c"}, np.array(["b"])]
    assert many.labels(values) == ("1", "a", "b", "c")
    targets = many.encode(values, many.labels(values))
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_one_class_is_refused(one: Any, many: Any) -> None:
    with pytest.raises(DataError, match="only one label 'x' in 3 rows"):
        one.labels(["x"] * 3)
    with pytest.raises(DataError, match="only one label 'x' in 2 rows"):
        many.labels([["x"], "x"])
    with pytest.raises(DataError, match="no label in 2 rows"):
        many.labels([[], []])
    with pytest.raises(DataError, match=r"the same labels \['a', 'b'\]"):
        many.labels(["a|b", ["b", "a"]])
    assert many.labels([["x"], []]) == ("x",), "present or absent can be learned"


def test_regression_targets_are_refused(one: Any) -> None:
    with pytest.raises(DataError, match="regression is not supported yet"):
        one.labels([1.0, 2.5, 3.0])
    with pytest.raises(DataError, match=r"such as 0\.5"):
        one.labels([str(i + 0.5) for i in range(30)])
    assert one.labels(["4.5", "5", "4.5"]) == ("4.5", "5"), "ratings in a text file are classes"
    assert len(one.labels([str(i) for i in range(30)])) == 30, "whole numbers are classes"


def test_decoding(one: Any, many: Any) -> None:
    assert one.decode(np.array([[0.2, 0.8], [0.6, 0.4]]), ("a", "b")) == ["b", "a"]
    assert many.decode(np.array([[0.5, 0.8], [0.4, 0.1]]), ("a", "b")) == [["a", "b"], []]
    strict = create("tasks", "multilabel", options={"threshold": "0.7"})
    assert strict.decode(np.array([[0.5, 0.8]]), ("a", "b")) == [["b"]]
    assert strict.scores(np.array([[0.5, 0.8]]), np.array([[0.0, 1.0]])) == [1]
    with pytest.raises(BadOption, match="between 0 and 1"):
        create("tasks", "multilabel", options={"threshold": 1.5})


def test_cross_entropy_with_smoothing(one: Any) -> None:
    logits, targets = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]]), torch.tensor([1, 0])
    logs = logits.log_softmax(1)
    own, spread = -logs[[0, 1], targets].mean(), -logs.mean()
    assert one.loss(logits, targets, 0.0).item() == pytest.approx(own.item())
    assert one.loss(logits, targets, 0.1).item() == pytest.approx((0.9 * own + 0.1 * spread).item())


def test_binary_cross_entropy_with_smoothing(many: Any) -> None:
    logits, targets = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, 0.0]])
    p = logits.sigmoid()
    assert many.loss(logits, targets, 0.0).item() == pytest.approx(-(p[0, 0].log() + (1 - p[0, 1]).log()).item() / 2)
    soft = torch.tensor([[0.95, 0.05]])
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    assert many.loss(logits, targets, 0.1).item() == pytest.approx(expected.item(), rel=1e-5)
