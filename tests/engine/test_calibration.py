"""One temperature, found where it can be and left alone where it cannot."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from warmstart.engine.calibration import apply_temperature, fit_temperature, probabilities


def honest_logits(n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true distribution of the targets."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(n, classes))
    cumulative = probabilities(logits, "softmax").cumsum(axis=1)
    return logits, (rng.random((n, 1)) > cumulative).sum(axis=1).clip(max=classes - 1)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_softmax_temperature_undoes_a_factor(factor: float) -> None:
    logits, targets = honest_logits(4000, 5)
    assert fit_temperature(factor * logits, targets, "softmax") == pytest.approx(factor, rel=0.06)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_sigmoid_temperature_undoes_a_factor(factor: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, size=(2000, 4))
    targets = (rng.random((2000, 4)) < probabilities(logits, "sigmoid")).astype(np.float32)
    assert fit_temperature(factor * logits, targets, "sigmoid") == pytest.approx(factor, rel=0.06)


def test_temperature_minimises_held_out_log_loss() -> None:
    logits, targets = honest_logits(1000, 3)
    logits = (3 * logits).astype(np.float32)
    best = fit_temperature(logits, targets, "softmax")
    losses = {t: log_loss(targets, probabilities(apply_temperature(logits, t), "softmax")) for t in (best, 0.95 * best, 1.05 * best, 1.0)}
    assert min(losses, key=losses.get) == best


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_few_separable_rows_stay_near_one(link: str) -> None:
    targets = np.array([0, 1] * 4)
    logits = 2 * np.eye(2)[targets] - 1
    assert 0.4 < fit_temperature(logits, targets if link == "softmax" else np.eye(2)[targets], link) < 1


def test_many_separable_or_hopeless_rows_stop_at_the_bounds() -> None:
    targets = np.array([0, 1] * 5000)
    logits = 0.1 * np.eye(2)[targets]
    assert fit_temperature(logits, targets, "softmax") == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(1e4 * logits, 1 - targets, "softmax") == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_constant_logits_leave_one(link: str) -> None:
    targets = np.array([0, 1, 1])
    assert fit_temperature(np.zeros((3, 2)), targets if link == "softmax" else np.eye(2)[targets], link) == pytest.approx(1, abs=1e-3)


def test_rows_of_unknown_label_are_left_out() -> None:
    logits, targets = honest_logits(50, 3)
    padded = fit_temperature(np.concatenate([logits, logits]), np.concatenate([targets, np.full(50, -1)]), "softmax")
    assert padded == fit_temperature(logits, targets, "softmax")
    assert fit_temperature(logits, np.full(50, -1), "softmax") == 1
    assert fit_temperature(np.zeros((0, 3)), np.zeros((0, 3)), "sigmoid") == 1


def test_probabilities_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4], [0.0, 0.0]], np.float32)
    for link in ("softmax", "sigmoid"):
        assert probabilities(logits, link) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
    assert probabilities(logits, "softmax").dtype == np.float64
