"""Models adapted once for all tests of the verbs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tiny_text import rows, write_csv
from warmstart import cli


@pytest.fixture(scope="session")
def train_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 rows: enough for a single split, so that every strategy is fitted once."""
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows(2000))


@pytest.fixture(scope="session")
def test_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "test.csv", rows(150, seed=1))


@pytest.fixture
def warmstart(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Run a command with ``--json``: its exit code, the object (or list of objects) that it printed, and its standard error."""

    def run(*args: str | Path) -> tuple[int, Any, str]:
        code = cli.main([*map(str, args), "--json"])
        out, err = capsys.readouterr()
        printed = [json.loads(line) for line in out.splitlines()]
        return code, printed[0] if len(printed) == 1 else printed, err

    return run


@pytest.fixture(scope="session")
def adapted(train_csv: Path, test_csv: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a model adapted with these flags, made when it is first asked for."""
    made: dict[Sequence[str], Path] = {}

    def adapt(*flags: str) -> Path:
        if flags not in made:
            out = tmp_path_factory.mktemp("models") / "model"
            args = ["adapt", train_csv, "--test", test_csv, "--backbone", backbone, "--out", out, "--budget", "5m", "--quiet"]
            assert cli.main([*map(str, args), *flags]) == 0
            made[flags] = out
        return made[flags]

    return adapt
