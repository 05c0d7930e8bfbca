"""Classes that are taken for each other are told, and lie side by side."""

from __future__ import annotations

import re

import numpy as np
import pytest

from warmstart.engine import confusions


def mixed(size: int, *pairs: tuple[int, int]) -> np.ndarray:
    counts = np.diag([50] * size)
    for n, (a, b) in enumerate(pairs):
        counts[a, b] = counts[b, a] = 20 + n
    return counts


@pytest.mark.parametrize(("size", "pairs"), [(4, [(0, 2)]), (5, [(0, 3), (1, 4)]), (16, [(0, 9), (3, 14), (5, 11)])])
def test_confused_classes_become_neighbours(size: int, pairs: list[tuple[int, int]]) -> None:
    order = confusions.order(mixed(size, *pairs))
    assert sorted(order) == list(range(size))
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in pairs)


@pytest.mark.parametrize("counts", [np.diag([5, 5, 5, 5, 5]), np.array([[3, 2], [1, 4]]), np.array([[1, 1, 0], [0, 1, 1], [9, 0, 1]])])
def test_few_classes_and_no_mistakes_stay_in_order(counts: np.ndarray) -> None:
    assert confusions.order(counts) == list(range(len(counts)))


def test_of_many_classes_both_sides_of_the_worst_pairs_are_drawn() -> None:
    size = 300
    pairs = [(i, size - 1 - i) for i in range(0, 60, 2)]
    kept = set(confusions.part(mixed(size, *pairs)).tolist())
    assert len(kept) == confusions.MOST
    assert all(k in kept for pair in pairs[-20:] for k in pair), "those with the most mistakes"
    labels = [f"class {i}" for i in range(size)]
    drawn = confusions.matrix(labels, mixed(size, *pairs))
    assert len(re.findall("class [0-9]+<", drawn)) == 2 * confusions.MOST, "every drawn class is named, down and across"
    assert "class 58<" in drawn
    assert "class 100<" not in drawn


def test_shares_are_of_all_rows_of_a_class_though_a_part_is_drawn() -> None:
    counts = mixed(60, *((i, 59 - i) for i in range(20)))
    few = counts.copy()
    few[0, 25:30] = 1000  # classes that are cut off
    kept = confusions.part(counts)
    assert confusions.matrix([str(i) for i in range(60)], counts) != confusions.matrix([str(i) for i in range(60)], few)
    assert len(kept) == 40


def test_the_sentence_names_the_worst_pair_in_both_directions() -> None:
    labels = ["ant", "bee", "cat"]
    counts = np.array([[5, 1, 0], [7, 9, 2], [0, 0, 4]])
    said = confusions.sentence(labels, counts, whole=True)
    assert (
        said
        == "“bee” and “ant” are mixed up most: 7 of 18 “bee” were taken for “ant”, 1 of 6 the other way. That is 80\u00a0% of all mistakes."
    )
    assert confusions.sentence(labels, np.diag([1, 2, 3]), whole=True) == ""
    assert confusions.sentence(["a", "b"], np.array([[1, 3], [0, 1]]), whole=True).endswith("none the other way.")
    assert "of all" not in confusions.sentence(labels, counts, whole=False), "a part of the mistakes"
    words = ["(nothing)", "two", "too"]
    assert confusions.sentence(words, np.array([[0, 9, 0], [0, 5, 2], [0, 0, 5]]), whole=False).startswith("“two” and “too” are")


def test_the_most_confused_pairs_come_first() -> None:
    found = confusions.pairs(["a", "b", "c"], np.array([[5, 1, 0], [7, 9, 2], [0, 0, 4]]), 5)
    assert found[0] == confusions.Pair("b", "a", 7, 18)
    assert [(p.truth, p.predicted) for p in found] == [("b", "a"), ("b", "c"), ("a", "b")]
    assert confusions.pairs(["a"], np.array([[3]]), 5) == []


def test_what_is_no_square_is_not_drawn() -> None:
    assert confusions.matrix(["a", "b"], confusions.table(["a", "b"], [[1]])) == ""
    assert confusions.matrix([], confusions.table([], [])) == ""
