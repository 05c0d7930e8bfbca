"""predict with a causal language model: prompts in, text out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warmstart import cli

Run = Callable[..., tuple[int, Any, str]]
OPTIONS = {"width": 16, "depth": 1, "heads": 2, "context": 16, "batch": 4, "steps": 2, "tokenizer": "characters"}


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt")
    (folder / "corpus.txt").write_text("the cat sees the dog.\nthe dog hears music.\n" * 20)
    sets = [f"--set=objective.{name}={value}" for name, value in OPTIONS.items()]
    command = ["pretrain", str(folder / "corpus.txt"), "--objective", "gpt", "--out", str(folder / "body"), "--quiet", *sets]
    assert cli.main(command) == 0
    return folder / "body"


def test_one_object_a_prompt(writer: Path, warmstart: Run) -> None:
    code, printed, err = warmstart("predict", writer, "the cat", "the dog", "--max-tokens", "7", "--temperature", "1", "--top-k", "5")
    assert (code, err) == (0, "")
    assert [record["prompt"] for record in printed] == ["the cat", "the dog"]
    assert all(0 < record["tokens"] <= 7 and record["stopped"] in ("end", "length") for record in printed)
    again = warmstart("predict", writer, "the cat", "the dog", "--max-tokens", "7", "--temperature", "1", "--top-k", "5")[1]
    assert again == printed
    assert warmstart("predict", writer, "the cat", "--max-tokens", "7", "--temperature", "1", "--seed", "8")[1] != printed[0]


def test_the_terminal_shows_prompt_and_text(writer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(writer), "the dog", "--max-tokens", "5", "--temperature", "0", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert cli.main(["predict", str(writer), "the dog", "--max-tokens", "5", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "the dog" + record["text"] + "\n"


def test_prompts_from_a_table_and_from_standard_input(
    writer: Path, tmp_path: Path, warmstart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.csv").write_text("text\nthe cat\nthe dog\n")
    code, printed, _ = warmstart("predict", writer, tmp_path / "prompts.csv", "--out", tmp_path / "texts.jsonl", "--max-tokens", "3")
    assert (code, printed["rows"]) == (0, 2)
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["the cat", "the dog"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\nsees\n"))
    assert warmstart("predict", writer, "-", "--max-tokens", "3")[1]["prompt"] == "the cat\nsees"


def test_a_prompt_longer_than_the_context_is_noted_and_unknown_characters_refused(writer: Path, warmstart: Run) -> None:
    code, printed, err = warmstart("predict", writer, "the cat sees the dog. " * 3, "--max-tokens", "3")
    assert (code, printed["tokens"] > 0) == (0, True)
    assert "its context being 16" in err
    code, printed, err = warmstart("predict", writer, "the XXL cat")
    assert (code, printed["error"]["kind"]) == (2, "DataError")
    assert "'L', 'X'" in printed["error"]["given"]
    assert warmstart("predict", writer, "the", "--top-p", "2")[1]["error"]["kind"] == "BadOption"


def test_sampling_is_refused_for_a_folder_that_labels(
    adapted: Callable[..., Path], warmstart: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapted("--strategy", "majority")
    capsys.readouterr()
    code, printed, _ = warmstart("predict", folder, "a text", "--top-k", "3")
    assert (code, printed["error"]["kind"]) == (2, "BadOption")
    assert "--top-k" in printed["error"]["given"]


def test_an_empty_prompt_is_the_start_of_a_text(
    writer: Path, adapted: Callable[..., Path], warmstart: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, printed, err = warmstart("predict", writer, "", "--max-tokens", "5", "--temperature", "1")
    assert (code, err, printed["prompt"]) == (0, "", "")
    assert printed["tokens"] > 0 or printed["stopped"] == "end"
    folder = adapted("--strategy", "majority")
    capsys.readouterr()
    code, printed, _ = warmstart("predict", folder, "")
    assert (code, printed["error"]["kind"], printed["error"]["given"]) == (2, "DataError", "input 1: empty text")
