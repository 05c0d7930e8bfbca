"""The command line: exit codes, errors in one line and as JSON, and the commands that need no model."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from warmstart import api, cli, terminal
from warmstart.core import registry
from warmstart.core.errors import BadOption
from warmstart.core.report import DataSummary, Metric, Report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("args", [[], ["--help"], ["adapt", "-h"], ["--version"], ["parts"]])
def test_done_is_0(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""


WRONG = [
    (["adpt"], "BadOption", "adapt"),
    (["adapt", "x.csv"], "BadOption", "--out"),
    (["adapt", "--out", "m"], "BadOption", "no DATA"),
    (["adapt", "x.csv", "--out", "m", "--bugdet", "3"], "BadOption", "--budget"),
    (["adapt", "x.csv", "--out", "m", "--budget", "soon"], "BadOption", "5m"),
    (["adapt", "x.csv", "--out", "m", "--budget", "0"], "BadOption", "0 seconds"),
    (["adapt", "x.csv", "--out", "m", "--seed", "x"], "BadOption", "--seed"),
    (["adapt", "x.csv", "--out", "m", "--seed", "-1"], "BadOption", "seed = -1"),
    (["adapt", "x.csv", "--out", "m", "--prefer", "bst"], "BadOption", "best"),
    (["adapt", "x.csv", "--out", "m", "--column", "review"], "BadOption", "ROLE=NAME"),
    (["adapt", "x.csv", "--out", "m", "--set", "sed=3"], "BadOption", "'seed'"),
    (["adapt", "x.csv", "--out", "m", "--recipe", "none.toml"], "FileNotFound", "none.toml"),
    (["predict", "m"], "BadOption", "DATA"),
    (["parts", "strategis"], "UnknownPart", "strategies"),
    (["parts", "backbones", "minilmm"], "UnknownPart", "'minilm'"),
    (["cache", "limit"], "BadOption", "20GB"),
    (["cache", "limit", "5 apples"], "BadOption", "20GB"),
    (["cache", "cler"], "BadOption", "clear"),
]


@pytest.mark.parametrize(("args", "kind", "said"), WRONG, ids=[" ".join(args) for args, _, _ in WRONG])
def test_wrong_input_is_2_and_one_line(args: list[str], kind: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"warmstart: {kind}: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("args", "kind", "said"), WRONG[:4], ids=[" ".join(args) for args, _, _ in WRONG[:4]])
def test_wrong_input_as_json(args: list[str], kind: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*args, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert set(error) == {"kind", "given", "expected", "do"}
    assert error["kind"] == kind
    assert said in json.dumps(error)


@pytest.fixture
def boom() -> Iterator[str]:
    """A command that raises what its argument names."""
    kinds = {
        "interrupt": KeyboardInterrupt(),
        "memory": MemoryError(),
        "disk": OSError(errno.ENOSPC, "No space left on device"),
        "other": ValueError("two\nlines"),
    }

    def fail(kind: str) -> None:
        raise kinds[kind]

    cli.app.add_command(
        click.Command("boom", callback=fail, params=[click.Argument(["kind"]), click.Option(["--debug"], is_flag=True, expose_value=False)])
    )
    yield "boom"
    del cli.app.commands["boom"]


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("interrupt", 130, "same command resumes"),
        ("memory", 1, "memory"),
        ("disk", 1, "DiskFull"),
        ("other", 1, "ValueError: two lines. Run again"),
    ],
)
def test_failures(boom: str, kind: str, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([boom, kind]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_debug_shows_where(boom: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([boom, "other", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out.csv").write_text("mine")
    assert cli.main(["predict", "m", "a sentence", "--out", str(tmp_path / "out.csv")]) == 2
    assert "FolderExists" in capsys.readouterr().err
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_parts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parts", "backbones", "--json"]) == 0
    assert [part["name"] for part in json.loads(capsys.readouterr().out)] == list(registry.parts("backbones"))


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    minilm = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "minilm")
    if minilm["folder"] is None:
        pytest.skip("the default backbone is not installed")
    assert (minilm["parameters"], minilm["licence"], minilm["architecture"]) == (22_713_216, "apache-2.0", "BertModel")
    assert cli.main(["models"]) == 0
    assert "22.7 M" in capsys.readouterr().out


def test_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "limit", "500MB", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["limit_bytes"], state["bytes"]) == (500_000_000, 0)
    assert state["folder"].startswith(str(tmp_path))
    assert cli.main(["cache", "clear"]) == 0
    assert "at most 0.5 GB" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"].startswith("2.")
    assert found["matmul_gflops"]["float32"] > 0
    assert all(problem["do"] for problem in found["problems"])
    assert cli.main(["doctor"]) == 0
    assert "threads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "is_file"),
    [("-", True), ("new.csv", True), ("NEW.JSONL", True), ("not bad at all", False), ("word", False), ("x" * 5000, False), ("a\0b", False)],
)
def test_what_is_a_file(text: str, is_file: bool) -> None:
    assert cli._is_file(text) is is_file


MAIN = "import sys; from warmstart.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_reader_that_stops_is_no_error() -> None:
    """As with ``warmstart parts | head -0``."""
    process = subprocess.Popen([sys.executable, "-c", MAIN, "parts"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert (process.wait(timeout=60), said) == (0, b"")


def test_any_terminal_encoding() -> None:
    """A letter that the terminal's encoding lacks, or bytes that are no text at all, are still printed."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", MAIN, "adapt", "x.csv", "--out", "m", "--recipe"]
    run = subprocess.run([*command, "größe.toml"], env=env, capture_output=True, check=False)
    assert (run.returncode, "no recipe größe.toml".encode() in run.stderr) == (2, True)
    run = subprocess.run([*command, b"\xff.toml"], env=env, capture_output=True, check=False)
    assert (run.returncode, b"\\udcff.toml" in run.stderr) == (2, True)


def test_predictions_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"label": "größer", "probability": 0.5}, {"label": ["a", "b"], "probability": 0.98765}]
    terminal.print_predictions(records, ["one\ntwo", "three"])
    assert capsys.readouterr().out == "0.500  größer  one two\n0.988  a | b   three\n"
    terminal.print_predictions(iter(records * 150), None)
    assert capsys.readouterr().out.splitlines()[-1] == "0.988  a | b   row 300"


def test_a_report_on_stdout_and_its_warnings_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    data = DataSummary("x.csv", {}, 8, 4, {}, "given")
    metrics = {"accuracy": Metric(0.75, 0.2, 0.99, 4)}
    report = Report("evaluate", "m", "classes", "minilm", "tail", "accuracy", "test rows", metrics, data, warnings=["2 rows left out"])
    terminal.print_report(report, Path("m"), as_json=False)
    out, err = capsys.readouterr()
    assert "accuracy                    0.750 [0.200, 0.990]  n=4" in out
    assert out.endswith("Report: m/report.html\n")
    assert err == "note: 2 rows left out\n"
    terminal.print_report(report, Path("m"), as_json=True)
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == {"value": 0.75, "low": 0.2, "high": 0.99, "n": 4}


@pytest.mark.parametrize("wrong", [{"budget": "soon"}, {"seed": -1}, {"options": {"strategys": {}}}, {"column": {"text": 3}}])
def test_python_says_the_same(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        api.adapt("x.csv", out="m", **wrong)
