"""A structured task keeps its budget: resumed late, with too little time for everything, and with too little for anything."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_masks
from processes import stopped
from tiny_images import hf_backbone
from warmstart.core import registry
from warmstart.core.recipe import Recipe
from warmstart.engine import activations, dataset, rungs, workbench
from warmstart.engine.clock import Clock
from warmstart.engine.ladder import Ladder
from warmstart.engine.rungs import Candidate
from warmstart.stages import adapt

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training images: enough for a single split."""
    return tiny_masks.write(tmp_path_factory.mktemp("masks") / "train", 200)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_backbone("resnet", tmp_path_factory.mktemp("bodies") / "resnet")


def command(data: Path, body: Path, strategy: str, *more: str) -> list[str]:
    how = ["--set", "modality.size=48x64", "--set", "task.width=16", "--strategy", strategy, "--quiet"]
    return ["adapt", str(data), "--backbone", str(body), *how, *more]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["linear_probe", "full"])
def test_what_was_begun_late_is_ended(strategy: str, data: Path, body: Path, tmp_path: Path, warmstart: Run) -> None:
    args = [*command(data, body, strategy, "--budget", "3m", "--set", "task.epochs=400"), "--out", str(tmp_path / "model")]
    work = tmp_path / "model.partial" / ".work"
    suffix = ".head.safetensors" if strategy == "linear_probe" else ".safetensors"
    stopped(args, work / "rungs" / strategy / f"fold0.checkpoint{suffix}", signal.SIGKILL)
    run = json.loads((work / "run.json").read_text())
    (work / "run.json").write_text(json.dumps(run | {"spent": 172.0}))  # as if it had been killed so late
    code, report, err = warmstart(*args)
    assert code == 0, err
    assert report["ladder"][0]["chosen"]
    assert json.loads((tmp_path / "model" / "recipe.json").read_text())["plan"]["rungs"][0]["replans"]["fold0"]
    assert not work.exists()


def test_too_little_time_is_told_with_what_would_be_enough(data: Path, body: Path, tmp_path: Path, warmstart: Run) -> None:
    code, printed, _ = warmstart(*command(data, body, "full", "--budget", "1s"), "--out", tmp_path / "model")
    assert (code, printed["error"]["kind"]) == (2, "BudgetTooSmall")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ladder(data: Path, body: Path, tmp_path: Path) -> Ladder:
    """A climb over the masks with a minute to go, on a machine that takes a second for each row of a pass."""
    recipe = Recipe(
        data=str(data), backbone=str(body), task="semantic_segmentation", modality="image", options={"modality": {"size": "48x64"}}
    )
    rows = dataset.read(recipe, None, None, body=body)
    bench = workbench.Workbench(
        inputs=rows.train.inputs[:40],
        targets=rows.targets[:40],
        labels=rows.labels,
        task=registry.create("tasks", "semantic_segmentation", options={"width": 16, "epochs": 30}),
        modality=rows.modality,
        backbone_name=str(body),
        device=torch.device("cpu"),
        precision=torch.float32,
        max_length=64,
        seed=0,
        store=activations.Store(tmp_path / "store"),
    )
    split = (np.arange(30), np.arange(30, 40))
    return Ladder(bench, [split], Clock(60.0), tmp_path / "work")


def test_a_head_gets_its_share_and_all_of_it_where_that_is_too_little(ladder: Ladder) -> None:
    probe = Candidate("linear_probe", registry.create("strategies", "linear_probe"))
    above = [Candidate("full", registry.create("strategies", "full"))]
    ladder.bench.measured |= {"structured": 0.5, "structured_answer": 0.0}  # 15 s for a pass, and two at least
    step = adapt._climb_probe(ladder, probe, above, starved=True)
    assert step.folds == 1
    assert 30 < step.predicted < 55
    assert step.settings["epochs"] < step.settings["most"]
    assert ladder.bench.head_epochs == step.settings["epochs"]


def test_a_rung_says_what_budget_it_needs(ladder: Ladder) -> None:
    probe = registry.create("strategies", "linear_probe")
    ladder.bench.measured |= {"structured": 10.0, "structured_answer": 0.0}
    assert not ladder.climb("linear_probe", probe, seconds=ladder.left()).folds
    assert 600 < rungs.needed(ladder, probe) < 1000
    assert math.isinf(rungs.needed(ladder, registry.create("strategies", "classic")))
