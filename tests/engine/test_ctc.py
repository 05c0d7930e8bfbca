"""Connectionist temporal classification: marked frames, the loss, and both searches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from warmstart.engine import ctc


def _outputs(lengths: list[int], classes: int = 4) -> Tensor:
    logits = torch.randn(len(lengths), max(lengths), classes, generator=torch.Generator().manual_seed(0))
    return ctc.marked(logits, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def test_loss_is_that_of_each_utterance_alone() -> None:
    targets = [np.array([1, 2, 2]), np.array([3]), np.array([1, 3])]
    outputs = _outputs([12, 8, 5])
    assert ctc.frames(outputs).tolist() == [12, 8, 5]
    alone = [
        functional.ctc_loss(functional.log_softmax(o[:n, None], 2), torch.tensor(t)[None], [n], [len(t)], reduction="none") / len(t)
        for o, n, t in zip(outputs, [12, 8, 5], targets, strict=True)
    ]
    assert float(ctc.loss(outputs, targets)) == pytest.approx(float(torch.cat(alone).mean()), rel=1e-5)


def test_too_few_frames_count_nothing() -> None:
    outputs = _outputs([3, 6]).requires_grad_()
    found = ctc.loss(outputs, [np.array([1, 1, 1]), np.array([2])])
    found.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert ctc.needed([1, 1, 1]) == 5
    assert torch.isfinite(found)
    assert (outputs.grad[0] == 0).all()
    assert (outputs.grad[1] != 0).any()


def test_greedy_merges_repeats_and_says_how_sure_it_is() -> None:
    rows = np.log(np.array([[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], np.float32))
    classes, sure = ctc.greedy(rows)
    assert classes == [1, 1, 2]
    assert sure == pytest.approx((0.8 * 0.7 * 0.8) ** (1 / 3))
    assert ctc.greedy(rows[2:3]) == ([], pytest.approx(0.9))
    assert ctc.greedy(rows[:0]) == ([], 1.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_wide_beam_finds_the_likeliest_text(seed: int) -> None:
    rows = functional.log_softmax(2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)), 1).numpy()
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=6):
        text = tuple(c for c, _ in itertools.groupby(path) if c)
        totals[text] = np.logaddexp(totals.get(text, -np.inf), sum(rows[i, c] for i, c in enumerate(path)))
    assert tuple(ctc.beam(rows, width=100)[0]) == max(totals, key=lambda text: totals[text])


def test_a_language_model_decides_what_the_sound_leaves_open() -> None:
    model = ctc.NGrams.of([[1, 2]] * 20 + [[3, 3]], order=3, classes=4)
    assert sum(np.exp(model.log_probability([1], c)) for c in range(4)) == pytest.approx(1)
    assert model.log_probability([1], 2) > model.log_probability([1], 3)
    rows = np.log(np.array([[0.02, 0.9, 0.04, 0.04], [0.9, 0.04, 0.03, 0.03], [0.02, 0.04, 0.44, 0.5]], np.float32))
    assert ctc.beam(rows, width=8)[0] == [1, 3]
    assert ctc.beam(rows, width=8, language=model)[0] == [1, 2]
