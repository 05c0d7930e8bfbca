"""pretrain as a command: the folder that it leaves, what goes on from it, interruptions, errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from tiny_text import rows, write_csv
from warmstart import api
from warmstart.core.card import Card

Run = Callable[..., tuple[int, Any, str]]

SMALL = [
    *("--objective", "gpt", "--precision", "float32", "--quiet", "--set", "objective.width=32", "--set", "objective.depth=2"),
    *("--set", "objective.heads=2", "--set", "objective.context=16", "--set", "objective.batch=8", "--set", "objective.vocabulary=300"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "notes.txt"
    path.write_text("\n\n".join(row["text"] for row in rows(400)), encoding="utf-8")
    return path


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_body_that_adapt_starts_from(corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    body = tmp_path / "body"
    code, told, err = warmstart("pretrain", corpus, *SMALL, "--set", "objective.steps=60", "--out", body)
    assert code == 0, err
    assert (told["objective"], told["steps"], told["unit"], told["count"]) == ("gpt", 60, "tokens", 60 * 8 * 16)
    loss = told["metrics"]["validation_loss"]
    assert loss["low"] <= loss["value"] <= loss["high"] < 5.7  # that of a guess among 300 tokens
    assert not (tmp_path / "body.partial").exists()
    card = Card.read(body)
    card.verify(body)
    assert (card.verb, card.head, card.strategy, card.data.rows) == ("pretrain", "body", "gpt", 400)
    assert AutoModel.from_pretrained(body).config.hidden_size == 32
    page = (body / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 3
    assert len(page) < 2e6
    assert list((body / "tensorboard").glob("events*"))
    written = json.loads((body / "report.json").read_text())
    assert written["curves"]["loss"][0][-1] == 60
    assert written["curves"]["validation/loss"][1][-1] < written["curves"]["validation/loss"][1][0]

    train = write_csv(tmp_path / "train.csv", rows(60))
    code, told, err = warmstart("adapt", train, "--backbone", body, "--strategy", "linear_probe", "--out", tmp_path / "m", "--quiet")
    assert code == 0, err
    assert told["metrics"]["accuracy"]["value"] > 0.5
    code, told, _ = warmstart("evaluate", body, train)
    assert code == 2
    assert "adapt it first" in told["error"]["do"]


def test_the_recipe_run_again_gives_the_same_bits(corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    code, _, err = warmstart("pretrain", corpus, *SMALL, "--budget", "12s", "--out", first)
    assert code == 0, err
    code, _, err = warmstart("pretrain", "--recipe", first / "recipe.json", "--out", again, "--quiet")
    assert code == 0, err
    assert weights(first) == weights(again)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_stopped_in_the_middle(how: signal.Signals, corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    args = ["pretrain", corpus, *SMALL, "--set", "objective.steps=400", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "warmstart", *map(str, args), str(tmp_path / "cut")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    folder, deadline = tmp_path / "cut.partial" / ".work" / "checkpoints", time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    err = process.communicate()[1].decode()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), err
    assert "Traceback" not in err
    assert not (tmp_path / "cut").exists()
    for name in ("cut", "whole"):
        code, told, err = warmstart(*args, tmp_path / name)
        assert code == 0, err
        assert told["steps"] == 400
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize(("objective", "parallel"), [("gpt", "ddp"), ("gpt", "fsdp"), ("bert", "fsdp")])
def test_two_processes(objective: str, parallel: str, corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    """The command that the documentation names: one folder, and the curve of one process."""
    args = [str(a) for a in ("pretrain", corpus, *SMALL, "--set", "objective.steps=20", "--objective", objective)]
    if objective == "bert":
        args += ["--set", "objective.batch=128", "--set", "objective.at_once=64"]
    args.append("--out")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "warmstart"]
    subprocess.run([*torchrun, *args, str(tmp_path / "two"), "--parallel", parallel], check=True, capture_output=True, timeout=120)
    code, _, err = warmstart(*args, tmp_path / "one")
    assert code == 0, err
    losses = [json.loads((tmp_path / name / "report.json").read_text())["curves"]["loss"][1] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_from_python(corpus: Path, tmp_path: Path) -> None:
    options = {"objective": {"width": 32, "depth": 1, "heads": 2, "context": 16, "batch": 4, "vocabulary": 300, "steps": 3}}
    report = api.pretrain(corpus, out=tmp_path / "body", objective="gpt", options=options)
    assert report is not None
    assert report.steps == 3
    assert report.as_text().startswith("gpt: ")


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (["--objective", "brt"], "UnknownPart", "Did you mean 'bert'?"),
        ([], "BadOption", "--objective"),
        (["--objective", "gpt", "--set", "objective.depht=3"], "BadOption", "Did you mean 'depth'?"),
        (["--objective", "gpt", "--modality", "image"], "UnknownPart", "does not learn from image"),
        (["--objective", "gpt", "--budget", "soon"], "BadOption", "duration"),
        (["--objective", "gpt", "--budget", "0.5s"], "BudgetTooSmall", ""),
        (["--objective", "gpt", "--from", "./nowhere"], "BackboneNotFound", "nowhere"),
    ],
)
def test_wrong_input(flags: list[str], kind: str, words: str, corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    code, told, err = warmstart("pretrain", corpus, *flags, "--out", tmp_path / "body", "--quiet")
    assert (code, told["error"]["kind"]) == (2, kind), err
    assert words in json.dumps(told["error"], ensure_ascii=False)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    (tmp_path / "body").mkdir()
    (tmp_path / "body" / "thesis.txt").write_text("mine")
    for flags in ([], ["--force"]):
        code, told, _ = warmstart("pretrain", corpus, *SMALL, *flags, "--out", tmp_path / "body")
        assert (code, told["error"]["kind"]) == (2, "FolderExists")
    assert (tmp_path / "body" / "thesis.txt").read_text() == "mine"
    code, told, _ = warmstart("pretrain", tmp_path / "none.txt", *SMALL, "--out", tmp_path / "other")
    assert (code, told["error"]["kind"]) == (2, "FileNotFound")


def test_unlabelled_data(backbone: Path, corpus: Path, tmp_path: Path, warmstart: Run) -> None:
    """Going on with pre-training is measured on the same rows and told; six steps help nothing, so the body stays as it was."""
    train = write_csv(tmp_path / "train.csv", rows(60))
    flags = ["--backbone", backbone, "--strategy", "linear_probe", "--set", "objective.steps=6", "--set", "objective.batch=256", "--quiet"]
    code, told, err = warmstart("adapt", train, "--unlabelled", corpus, *flags, "--budget", "5m", "--out", tmp_path / "m")
    assert code == 0, err
    assert sorted(rung["strategy"] for rung in told["ladder"]) == ["linear_probe", "linear_probe, continued"]
    assert told["strategy"] == "linear_probe"
    assert any("notes.txt did not measurably help" in sentence for sentence in told["verdict"])
    assert not any("continued might have been enough" in sentence for sentence in told["verdict"])
    assert {told["comparisons"][-1]["a"], told["comparisons"][-1]["b"]} == {"linear_probe, continued", "linear_probe"}

    recipe = json.loads((tmp_path / "m" / "recipe.json").read_text())
    assert recipe["plan"]["unlabelled"]["kept"] is False
    recipe["plan"]["unlabelled"]["kept"] = True  # as if it had helped: a recorded plan is followed
    (tmp_path / "kept.json").write_text(json.dumps(recipe))
    for name in ("first", "again"):
        code, told, err = warmstart("adapt", "--recipe", tmp_path / "kept.json", "--out", tmp_path / name, "--quiet")
        assert code == 0, err
        assert told["strategy"] == "linear_probe, continued"
    assert "continued on notes.txt" in Card.read(tmp_path / "first").backbone.name
    assert weights(tmp_path / "first") == weights(tmp_path / "again") != weights(tmp_path / "m")
    assert (tmp_path / "first" / "head.safetensors").read_bytes() == (tmp_path / "again" / "head.safetensors").read_bytes()


def test_wrong_unlabelled_data_are_told_before_anything_is_read(backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    train = write_csv(tmp_path / "train.csv", rows(60))
    (tmp_path / "empty.txt").write_text("\n\n")
    for name, kind, words in [("empty.txt", "DataError", "hold no text"), ("none.txt", "FileNotFound", "no file")]:
        args = ["--unlabelled", tmp_path / name, "--backbone", backbone, "--out", tmp_path / "m"]
        code, told, err = warmstart("adapt", train, *args)
        assert (code, told["error"]["kind"]) == (2, kind), err
        assert words in told["error"]["given"]
        assert len(err.splitlines()) == 1
        assert not (tmp_path / "m.partial").exists()


def test_a_short_text_is_warned_of(tmp_path: Path, warmstart: Run) -> None:
    (tmp_path / "short.txt").write_text("\n\n".join(row["text"] for row in rows(30)))
    sets = ["--set", "objective.context=8192", "--set", "objective.steps=2", "--set", "objective.batch=2"]
    code, told, err = warmstart("pretrain", tmp_path / "short.txt", *SMALL, *sets, "--out", tmp_path / "body")
    assert code == 0, err
    said = json.loads((tmp_path / "body" / "report.json").read_text())["warnings"]
    assert said == told["warnings"]
    assert any(f"the context is {told['settings']['context']:,} tokens, not 8,192: the held-out text has no more" in text for text in said)
    assert told["metrics"]["validation_loss"]["n"] == 1
    assert any(text.startswith("validation_loss") and "one held-out row or window alone" in text for text in said)
