"""A run that is killed, interrupted or out of disk leaves what the same command resumes, with the same result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processes import stopped
from tiny_text import rows, write_csv

Run = Callable[..., tuple[int, Any, str]]


def weights(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_in_the_middle_of_training(
    how: signal.Signals, train_csv: Path, test_csv: Path, backbone: Path, tmp_path: Path, warmstart: Run
) -> None:
    flags = ["--strategy", "full", "--set", "strategy.epochs=8", "--budget", "20m", "--quiet"]
    args = ["adapt", train_csv, "--test", test_csv, "--backbone", backbone, *flags, "--out"]
    args = list(map(str, args))
    fold = tmp_path / "model.partial" / ".work" / "rungs" / "full" / "fold0"
    code, err = stopped([*args, str(tmp_path / "model")], fold.with_suffix(".checkpoint.safetensors"), how)
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL), err
    assert err.count("\n") == (1 if how == signal.SIGINT else 0), err
    assert "Traceback" not in err
    assert not fold.with_suffix(".json").exists()
    assert not (tmp_path / "model").exists()

    code, printed, _ = warmstart("predict", tmp_path / "model", "my card")
    assert (code, printed["error"]["kind"]) == (2, "NotAModel")
    code, printed, _ = warmstart(*args, tmp_path / "model", "--seed", "9")
    assert (code, printed["error"]["kind"]) == (2, "FolderExists")  # another run: not resumed, not overwritten

    assert warmstart(*args, tmp_path / "model")[0] == 0
    assert warmstart(*args, tmp_path / "whole")[0] == 0
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]
    assert not (tmp_path / "model" / ".work").exists()


@pytest.mark.slow
def test_between_two_folds(backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "data.csv", rows(120))
    flags = ["--strategy", "lora", "--set", "strategy.epochs=1", "--set", "strategy.contrastive=3", "--budget", "20m", "--quiet"]
    args = list(map(str, ["adapt", data, "--backbone", backbone, *flags, "--out"]))
    rung = tmp_path / "model.partial" / ".work" / "rungs" / "lora"
    stopped([*args, str(tmp_path / "model")], rung / "fold1.json", signal.SIGKILL)
    done = json.loads((rung / "fold0.json").read_text())
    (rung / "fold0.json").write_text(json.dumps(done | {"seconds": 5000.0}))  # to see whether it is used or made again
    code, resumed, err = warmstart(*args, tmp_path / "model")
    assert code == 0, err
    code, whole, err = warmstart(*args, tmp_path / "whole")
    assert code == 0, err
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["ladder"][0]["seconds"] > 5000 > whole["ladder"][0]["seconds"]


def test_no_space_left(train_csv: Path, backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    limited = """
import resource, sys
from warmstart.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[1:]))
"""
    flags = ["--strategy", "linear_probe", "--out", tmp_path / "model", "--quiet"]
    args = list(map(str, ["adapt", train_csv, "--backbone", backbone, *flags]))
    done = subprocess.run([sys.executable, "-c", limited, *args, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "DiskFull"
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "model").exists()
    assert warmstart(*args)[0] == 0
