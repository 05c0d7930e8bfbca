"""Examples: which column plays which role, and what happens to rows that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmstart.core.errors import BadOption, ColumnNotFound, DataError, WarmstartError
from warmstart.core.recipe import Recipe
from warmstart.engine import dataset
from warmstart.engine.examples import Examples, read_examples, summarise
from warmstart.parts.modalities import text
from warmstart.parts.tasks import classification

MODALITY = text.Part(text.Options())
TASK = classification.Part(classification.Options())
REVIEWS = {"id": ["r1", "r2", "r3", "r4"], "review": ["good film", "bad film", "a good one", "a bad one"], "stars": ["5", "1", "5", "1"]}


def read(source: Any, **changes: Any) -> Examples:
    settings: dict[str, Any] = {"task": TASK, "given": {}, "group": None, "skip_bad": False, "labelled": True}
    return read_examples(source, modality=MODALITY, **{**settings, **changes})


def message(kind: type[WarmstartError], source: Any, **changes: Any) -> str:
    with pytest.raises(kind) as caught:
        read(source, **changes)
    return str(caught.value)


def test_roles_are_inferred_and_said() -> None:
    examples = read(REVIEWS)
    assert examples.columns == {"text": "review", "label": "stars"}
    assert examples.notes == ["text = 'review', label = 'stars' (inferred; --column overrides)"]
    assert examples.inputs[0] == ("good film",)
    assert examples.targets == ["5", "1", "5", "1"]
    assert examples.rows == [1, 2, 3, 4]


def test_given_columns_are_kept_and_not_called_inferred() -> None:
    examples = read({**REVIEWS, "category": ["x", "y", "x", "y"]}, given={"label": "category"})
    assert examples.columns == {"text": "review", "label": "category"}
    assert examples.notes == ["text = 'review' (inferred; --column overrides)"]
    swapped = read({"label": ["one text", "two text"], "text": ["a", "b"]}, given={"label": "text", "text": "label"})
    assert swapped.inputs == [("one text",), ("two text",)]
    assert swapped.notes == []


def test_a_sure_name_wins_over_likely_ones() -> None:
    assert read({**REVIEWS, "Label": ["a", "b", "a", "b"]}).columns["label"] == "Label"


def test_the_label_may_be_the_only_column_with_repeated_values() -> None:
    source = {"text": [f"text {i}" for i in range(12)], "code": list(range(12)), "verdict": ["a", "b", "a"] * 4}
    assert read(source).columns == {"text": "text", "label": "verdict"}


def test_pairs() -> None:
    source = {"premise": ["a b", "c"], "hypothesis": ["d", "e f"], "label": [0, 1]}
    examples = read(source)
    assert examples.columns == {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    assert examples.inputs == [("a b", "d"), ("c", "e f")]
    assert read(source, given={"text": "hypothesis"}).inputs == [("d",), ("e f",)]


UNCLEAR = {"text": ["a", "b"], "category": ["x", "y"], "topic": ["x", "y"]}


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        (REVIEWS, {"given": {"text": "reviews"}}, "no column 'reviews'. Did you mean 'review'? Expected columns: 'id', 'review', 'stars'"),
        (REVIEWS, {"group": "author"}, "no column 'author'"),
        (UNCLEAR, {}, "could be 'category' or 'topic'"),
        ({"text": ["a", "b"]}, {}, "no column looks like a label"),
        ({"text": [f"t{i}" for i in range(9)], "p": [1, 2, 3] * 3, "q": [1, 2, 3] * 3}, {}, "no column looks like a label"),
        ({"text": [f"t{i}" for i in range(9)], "p": [1, 2] * 4 + [1], "q": [2, 1] * 4 + [2]}, {}, "could be 'p' or 'q'"),
        ({"amount": [1, 2], "label": ["a", "b"]}, {}, "no column holds text"),
    ],
)
def test_columns_that_are_not_there_or_not_clear(source: Any, changes: dict[str, Any], said: str) -> None:
    assert said in message(ColumnNotFound, source, **changes)


def test_a_role_that_does_not_exist() -> None:
    assert "Did you mean 'text'?" in message(BadOption, REVIEWS, given={"txt": "review"})


BAD_ROWS = [
    ("", "a", "empty text"),
    (None, "a", "missing text"),
    (float("nan"), "a", "missing text"),
    (3, "a", "not a string"),
    ("\ud800", "a", "broken Unicode"),
    ("fine", None, "missing label"),
    ("fine", float("nan"), "missing label"),
    ("fine", " ", "missing label"),
]


@pytest.mark.parametrize("task", [TASK, None])
@pytest.mark.parametrize(("value", "label", "reason"), BAD_ROWS)
def test_a_bad_row_is_named_or_counted(value: Any, label: Any, reason: str, task: Any) -> None:
    source = {"text": ["one", value, "two"], "label": ["a", label, "b"]}
    said = message(DataError, source, task=task)
    assert f"row 2: {reason}" in said
    assert "--skip-bad" in said
    examples = read(source, task=task, skip_bad=True)
    assert (examples.inputs, examples.targets, examples.rows) == ([("one",), ("two",)], ["a", "b"], [1, 3])
    assert examples.left_out == {reason: 1}


def test_lines_of_a_file_are_named_and_both_kinds_of_left_out_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfine,a\n,a\ntoo,many,cells\nalso fine,b\n")
    examples = read(path, skip_bad=True)
    assert examples.left_out == {"wrong number of cells": 1, "empty text": 1}
    assert examples.rows == [2, 5]
    path.write_text("text,label\nfine,a\n,a\n,b\n")
    assert f"{path}, line 3: empty text (of 3 rows: 2 empty text)" in message(DataError, path)


def test_no_usable_row_at_all() -> None:
    assert "2 empty text" in message(DataError, {"text": ["", " "], "label": ["a", "b"]}, skip_bad=True, given={"text": "text"})


def test_groups_are_read_and_must_not_be_missing() -> None:
    source = {"text": ["a", "b", "c"], "label": ["x", "y", "x"], "author": ["p", "q", None]}
    assert "row 3: missing group" in message(DataError, source, group="author")
    examples = read(source, group="author", skip_bad=True)
    assert examples.groups == ["p", "q"]
    assert examples.columns["group"] == "author"


def test_predicting_needs_no_labels_and_keeps_them_unchecked() -> None:
    assert read({"text": ["a", "b"]}, labelled=False).targets is None
    assert read({"text": ["a", "b"], "label": ["x", None]}, labelled=False).targets == ["x", None]
    assert read(UNCLEAR, labelled=False).targets is None
    trained_on = {"text": "review", "label": "stars", "group": "author"}
    assert read({"review": ["a", "b"]}, labelled=False, given=trained_on).columns == {"text": "review"}


def test_duplicates_conflicts_and_leaks() -> None:
    train = read({"text": ["A  film", "a film", "a FILM", "b", "b", "c"], "label": ["x", "x", "y", "y", "y", "x"]})
    test = read({"text": ["C", "d", "a film "], "label": ["x", "y", "x"]})
    assert summarise(train, test, MODALITY) == (3, 1, 2)
    assert summarise(train, None, MODALITY) == (3, 1, 0)


def test_what_is_left_out_is_named_and_counted_once() -> None:
    texts = [f"{'good' if i % 2 else 'bad'} thing {i}" for i in range(420)]
    labels: list[str | None] = ["pos" if i % 2 else "neg" for i in range(420)]
    texts[3], labels[7:14] = "", [None] * 7
    rows = dataset.read(Recipe(data="", modality="text", backbone="none", skip_bad=True), {"text": texts, "label": labels})
    assert rows.test is not None
    told = [warning for warning in rows.warnings if "left out" in warning]
    assert told == [
        "1 row of the mapping of columns was left out: empty text (row 4)",
        "7 rows of the mapping of columns were left out: missing label (row 8, row 9, row 10, row 11, row 12, and 2 more)",
    ]
    assert dataset.summary(rows, None).left_out == {"empty text": 1, "missing label": 7}
