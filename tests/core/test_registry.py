"""The registry: parts are found, described and made without a list anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmstart.core import registry
from warmstart.core.errors import BadOption, UnknownPart


def test_a_file_is_a_part() -> None:
    assert "backbones" in registry.families()
    found = registry.parts("backbones")
    assert {"hub", "local", "minilm"} <= set(found)
    assert all(part.help.endswith(".") and "\n" not in part.help for part in found.values())


def test_an_entry_point_is_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_bodies.py").write_text(
        '"""Bodies of Acme."""\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Options:\n    """o"""\n'
        '    size: int = 3\n    """How big."""\n    name: str | None = None\n'
        "class Part:\n    def __init__(self, options):\n        self.options = options\n"
    )
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[warmstart.backbones]\nacme = acme_bodies:Part\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.parts.cache_clear()
    try:
        part = registry.parts("backbones")["acme"]
        assert part.help == "Bodies of Acme."
        assert part.options[0] == registry.OptionHelp("size", "int", "3", "How big.")
        assert registry.create("backbones", "acme", options={"size": "5"}).options.size == 5
        with pytest.raises(BadOption, match="Did you mean 'size'"):
            registry.create("backbones", "acme", options={"sise": 5})
    finally:
        registry.parts.cache_clear()


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UnknownPart, match="Did you mean 'backbones'"):
        registry.parts("backbone")
    with pytest.raises(UnknownPart, match=r"no backbone named 'minilmm'.*Did you mean 'minilm'"):
        registry.module("backbones", "minilmm")
    with pytest.raises(UnknownPart, match=r"no modality named 'sound'\. Did you mean 'audio'"):
        registry.module("modalities", "sound")


@pytest.mark.parametrize(
    ("task", "options", "given", "expected"),
    [
        ("speech_recognition", {"beam": 0}, "speech_recognition.beam = 0", "at least 1"),
        ("object_detection", {"width": 7}, "object_detection.width = 7", "a multiple of 8"),
        ("semantic_segmentation", {"balance": 2}, "semantic_segmentation.balance = 2.0", "0 to 1"),
        (
            "speech_recognition",
            {"beam": 0, "ngrams": -1},
            "speech_recognition.beam = 0, speech_recognition.ngrams = -1",
            "beam at least 1, ngrams at least 0",
        ),
    ],
)
def test_only_what_is_out_of_range_is_named(task: str, options: dict[str, int], given: str, expected: str) -> None:
    with pytest.raises(BadOption) as raised:
        registry.create("tasks", task, options=options)
    assert raised.value.given == given
    assert raised.value.expected == f"expected {expected}"


@pytest.mark.parametrize(
    ("value", "type_name", "expected"),
    [
        ("3", "int", 3),
        (3, "int", 3),
        ("0.5", "float", 0.5),
        ("yes", "bool", True),
        (False, "bool", False),
        ("none", "int | None", None),
        ("4", "int | None", 4),
        ("a", "Literal['a', 'b']", "a"),
        ("x", "str", "x"),
    ],
)
def test_convert(value: Any, type_name: str, expected: Any) -> None:
    assert registry.convert(value, type_name, "here") == expected


@pytest.mark.parametrize(("value", "type_name"), [("x", "int"), (1.5, "int"), ("maybe", "bool"), ("c", "Literal['a', 'b']"), (3, "str")])
def test_convert_refuses(value: Any, type_name: str) -> None:
    with pytest.raises(BadOption, match="here = "):
        registry.convert(value, type_name, "here")


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e999", float("nan")])
@pytest.mark.parametrize("type_name", ["float", "float | None"])
def test_a_number_that_is_not_finite_is_no_option(value: Any, type_name: str) -> None:
    with pytest.raises(BadOption, match=r"gpt.lr = .*a finite number"):
        registry.convert(value, type_name, "gpt.lr")
