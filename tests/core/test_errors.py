"""Errors: three sentences on one line, exit codes by branch, and the drawing at the top of the file is the tree."""

from __future__ import annotations

import re

import pytest

from warmstart.core import errors
from warmstart.core.errors import BadOption, InputError, RunError, WarmstartError, nearest


def _tree(kind: type[WarmstartError]) -> list[type[WarmstartError]]:
    return [found for child in kind.__subclasses__() if child.__module__ == errors.__name__ for found in (child, *_tree(child))]


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"(?:├──|└──) (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(kind.__name__ for kind in _tree(WarmstartError))


@pytest.mark.parametrize("kind", _tree(WarmstartError), ids=lambda kind: kind.__name__)
def test_exit_codes(kind: type[WarmstartError]) -> None:
    assert issubclass(kind, InputError) != issubclass(kind, RunError)
    assert kind("x").exit_code == (2 if issubclass(kind, InputError) else 1)


def test_one_line() -> None:
    error = BadOption("two\nlines.", "", " do this ")
    assert str(error) == "two lines. Do this."
    assert error.as_dict() == {"kind": "BadOption", "given": "two\nlines.", "expected": "", "do": " do this "}


def test_nearest() -> None:
    assert nearest("lroa", ["lora", "tail"]) == " Did you mean 'lora'?"
    assert nearest("LORA", ["lora"]) == " Did you mean 'lora'?"
    assert nearest("zzz", ["lora", "tail"]) == ""
