"""One way of writing transcripts, and how far answers are from them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from warmstart.engine import transcripts
from warmstart.engine.transcripts import Writing


@pytest.mark.parametrize(
    ("writing", "text", "wanted"),
    [
        (Writing(), "Don’t — STOP!", "don't stop"),
        (Writing(), "  a\n\tb ", "a b"),
        (Writing("upper", ""), "don't", "DON T"),
        (Writing("kept", ".,"), "Well, yes.", "Well, yes."),
        (Writing(), "u\u0308ber 7 \u4f60\u597d", "über 7 你好"),
        (Writing(), "?!", ""),
    ],
)
def test_normal(writing: Writing, text: str, wanted: str) -> None:
    assert writing.normal(text) == wanted
    assert writing.normal(wanted) == wanted


def test_edits_are_those_of_the_definition() -> None:
    @functools.cache
    def defined(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(defined(a[1:], b) + 1, defined(a, b[1:]) + 1, defined(a[1:], b[1:]) + (a[0] != b[0]))

    draw = np.random.default_rng(0)
    for _ in range(100):
        a, b = ("".join(draw.choice(list("abc"), size=draw.integers(7))) for _ in range(2))
        assert transcripts.edits(a, b) == defined(a, b)
        pairs = transcripts.alignment(a, b)
        assert "".join(x or "" for x, _ in pairs) == a
        assert "".join(y or "" for _, y in pairs) == b
        assert sum(x != y for x, y in pairs) == defined(a, b)


def test_rates_are_of_all_utterances_together() -> None:
    found = transcripts.metrics(["a b c", "d"], ["a x c", "d e f"], seed=0)
    assert found["wer"].value == pytest.approx(3 / 4)
    assert found["word_accuracy"].value == pytest.approx((2 / 3 + 0) / 2)
    assert found["exact"].value == 0
    assert all(m.low <= m.value <= m.high and m.n == 2 for m in found.values())
    assert transcripts.metrics(["a"], ["b c d"], seed=0)["wer"].value == 3
    assert transcripts.metrics(["a b"] * 20, ["a b"] * 20, seed=0)["wer"].low == 0


def test_intervals_cover_the_true_rate() -> None:
    random_ = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        wrong = random_.random((60, 5)) < 0.2
        found = transcripts.metrics(["a a a a a"] * 60, [" ".join("x" if w else "a" for w in row) for row in wrong], seed=trial)["wer"]
        covered += found.low <= 0.2 <= found.high
    assert covered >= 52


def test_confusions_and_packing() -> None:
    names, counts = transcripts.confusion(["one two", "one"], ["on two now", "on"])
    assert names == ["(nothing)", "now", "on", "one"]
    assert counts[3] == [0, 0, 2, 0]
    assert counts[0] == [0, 1, 0, 0]
    packed = transcripts.packed([(transcripts.points("ab"), 0.5), (transcripts.points(""), 1.0)])
    assert packed.tolist() == [[0.5, 97, 98], [1.0, -1, -1]]
    assert transcripts.text_of(packed[0, 1:]) == "ab"


def test_answers_for_pieces_become_one():
    rows = transcripts.packed([(transcripts.points(t), p) for t, p in (("one ", 0.5), ("two", 0.5), ("", 1.0), ("six", 0.25))])
    whole = transcripts.rejoined(rows, [3, 1])
    assert [transcripts.text_of(row[1:]) for row in whole] == ["one two", "six"]
    assert whole[:, 0].tolist() == pytest.approx([0.25 ** (1 / 3), 0.25])
