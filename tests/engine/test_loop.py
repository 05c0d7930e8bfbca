"""The loop of pre-training: exact resume, retreats, schedules, several processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_learner import Tiny
from warmstart.core.errors import BadOption, DiskFull, TrainingFailed
from warmstart.engine import checkpoints, loop, probing, store
from warmstart.engine.history import sparkline
from warmstart.engine.learner import Phase
from warmstart.engine.parallel import Crew

CPU = torch.device("cpu")


def drive(learner: Tiny, folder: Path, *, precision: torch.dtype = torch.float32, **more: Any) -> loop.Outcome:
    return loop.run(learner, loop.How(folder, 3, CPU, precision, **more))


def bits(learner: Tiny) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.module.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kinds", [("muon", "adamw"), ("sgd", "adamw")])
def test_it_learns_and_repeats_itself(tmp_path: Path, precision: torch.dtype, kinds: tuple[str, str]) -> None:
    first, again = Tiny(kinds=kinds), Tiny(kinds=kinds)
    before = first.validate(first.module.eval(), 0)["loss"]
    outcome = drive(first, tmp_path / "a", precision=precision)
    drive(again, tmp_path / "b", precision=precision)
    assert_same(bits(first), bits(again))
    assert first.validate(first.module.eval(), 0)["loss"] < 0.7 * before
    assert (outcome.steps, outcome.count, first.began) == (50, 50 * 24, [0, 1])
    assert outcome.history.curve("validation/loss")[0][-1] == 50
    assert all(p.dtype == torch.float32 for p in first.module.parameters())


class Killed(Exception):
    """Stands for a kill: nothing of the loop runs after it."""


@pytest.mark.parametrize("at", [1, 17, 29, 30, 41])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, at: int) -> None:
    whole = Tiny()
    drive(whole, tmp_path / "whole")
    seen = [0]

    def kill(loss: Tensor, step: int) -> Tensor:
        seen[0] += 1
        if seen[0] == at + 1:
            raise Killed
        return loss

    with pytest.raises(Killed):
        drive(Tiny(spoil=kill), tmp_path / "cut")
    resumed = Tiny()
    outcome = drive(resumed, tmp_path / "cut")
    assert_same(bits(whole), bits(resumed))
    assert outcome.steps == 50
    steps = [row["step"] for row in outcome.history.rows if "loss" in row]
    assert steps == sorted(set(steps))  # no step twice in the curves


KILLABLE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_loop import drive
from tiny_learner import Tiny
from pathlib import Path
drive(Tiny(steps=(1500, 50)), Path(sys.argv[2]))
"""


def test_kill_minus_nine(tmp_path: Path) -> None:
    """A real process, really killed, resumed twice: the same bits as one that nobody disturbed."""
    command = [sys.executable, "-c", KILLABLE, str(Path(__file__).parent), str(tmp_path / "cut")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    with subprocess.Popen(command, env=environment) as process:
        while len(list((tmp_path / "cut" / "checkpoints").glob("*.json"))) < 2 or not (tmp_path / "cut" / "history.jsonl").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    whole, resumed = Tiny(steps=(1500, 50)), Tiny(steps=(1500, 50))
    drive(whole, tmp_path / "whole")
    drive(resumed, tmp_path / "cut")
    assert resumed.began[-1] == 1
    assert_same(bits(whole), bits(resumed))


def test_nan_is_not_stepped_into(tmp_path: Path) -> None:
    """Once bad, then good: the run goes back, halves the rate, says so, and its weights are finite."""
    bad = [True]

    def once(loss: Tensor, step: int) -> Tensor:
        if step == 20 and bad:
            bad.clear()
            return loss * math.nan
        return loss

    learner = Tiny(steps=(60,), spoil=once)
    outcome = drive(learner, tmp_path)
    assert len(outcome.events) == 1
    assert "at step 21 the loss is nan" in outcome.events[0]
    assert "learning rate x 0.5" in outcome.events[0]
    assert all(bool(torch.isfinite(value).all()) for value in bits(learner).values())
    assert outcome.steps == 60


def test_a_leap_is_noticed(tmp_path: Path) -> None:
    bad = list(range(3))

    def leap(loss: Tensor, step: int) -> Tensor:
        if 300 <= step < 308 and bad:
            bad.pop()
            return loss * 40
        return loss

    outcome = drive(Tiny(steps=(400,), spoil=leap), tmp_path)
    assert len(outcome.events) == 1
    assert "leapt" in outcome.events[0]
    odd = drive(Tiny(steps=(400,), spoil=lambda loss, step: loss * 40 if step == 300 else loss), tmp_path / "odd")
    assert odd.events == []  # a single odd batch


def test_always_nan_fails_and_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="after 6 retreats"):
        drive(Tiny(spoil=lambda loss, step: loss * math.nan if step > 12 else loss), tmp_path)
    kept = checkpoints.Checkpoints(tmp_path / "checkpoints").newest()
    assert kept is not None
    assert kept.numbers["step"] == 13
    assert all(bool(torch.isfinite(value.float()).all()) for value in kept.tensors.values())


class Probed(Tiny):
    """Reads its states with a linear probe at every validation; ``bad`` of those find states that overflowed."""

    def __init__(self, bad: int) -> None:
        super().__init__(steps=(40,))
        self.bad = bad

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        x = torch.randn(60, 6, generator=torch.Generator().manual_seed(9))
        states = module[0](x) * (math.inf if self.bad > 0 else 1.0)  # type: ignore[index]
        self.bad -= 1
        return {"probe_accuracy": float(probing.right((states, (x.sum(1) > 0).long()), (states, (x.sum(1) > 0).long()), 2).float().mean())}


@pytest.mark.parametrize("bad", [1, 99])
def test_states_that_no_probe_can_read_are_a_bad_step(tmp_path: Path, bad: int) -> None:
    if bad == 1:
        outcome = drive(learner := Probed(bad), tmp_path)
        assert outcome.events == [
            "at step 2 validation found features that are not finite: back to step 1, learning rate x 0.5",
        ]
        assert (outcome.steps, learner.module.training) == (40, True)
        assert outcome.history.curve("validation/probe_accuracy")[0][-1] == 40
    else:
        with pytest.raises(TrainingFailed, match=r"features that are not finite, at step .*, after 6 retreats.* smaller learning rate"):
            drive(Probed(bad), tmp_path)


def test_the_last_step_is_validated_before_it_is_kept(tmp_path: Path) -> None:
    learner = Probed(1)
    learner.phases = lambda: [Phase("a", 1)]  # type: ignore[method-assign]
    outcome = drive(learner, tmp_path)
    assert outcome.events == ["at step 1 validation found features that are not finite: back to step 0, learning rate x 0.5"]
    assert outcome.steps == 1


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = store.write_tensors

    def full(path: Path, *rest: Any) -> None:
        if "00-000000010" in path.name:
            raise DiskFull("no space left")
        written(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_tensors", full)
        with pytest.raises(DiskFull):
            drive(Tiny(), tmp_path)
    whole, resumed = Tiny(), Tiny()
    drive(whole, tmp_path / "whole")
    drive(resumed, tmp_path)
    assert_same(bits(whole), bits(resumed))


def test_a_damaged_checkpoint_is_not_trusted(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints(tmp_path, keep=2)
    for step in range(4):
        kept.write(0, step, tensors={"x": torch.full((3,), float(step))}, numbers={"mean": 0.1 + step})
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["step-00-000000002.json", "step-00-000000003.json"]
    newest = tmp_path / "step-00-000000003.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    found = kept.newest()
    assert found is not None
    assert (found.numbers["mean"], found.tensors["x"].tolist()) == (2.1, [2.0, 2.0, 2.0])


def test_the_budget_shortens_a_run_and_the_record_repeats_it(tmp_path: Path) -> None:
    first = Tiny(steps=(100_000,))
    outcome = drive(first, tmp_path / "a", seconds=0.5)
    assert outcome.steps < 100_000
    assert outcome.seconds < 1.0
    again = Tiny(steps=(100_000,))
    assert drive(again, tmp_path / "b", replans=outcome.replans).steps == outcome.steps
    assert_same(bits(first), bits(again))


def test_a_run_that_turns_out_quicker_grows_early_and_the_record_repeats_it(tmp_path: Path) -> None:
    def phases(most: int) -> Tiny:
        learner = Tiny(steps=(20,))
        learner.phases = lambda: [Phase("a", 20, most=most)]  # type: ignore[method-assign]
        return learner

    first, again = phases(60), phases(60)
    outcome = drive(first, tmp_path / "a", seconds=30.0)
    assert outcome.steps == 60
    assert outcome.replans["a"][0][0] <= loop.GROWS * 20
    assert drive(again, tmp_path / "b", replans=outcome.replans).steps == 60
    assert_same(bits(first), bits(again))
    assert drive(phases(0), tmp_path / "c", seconds=30.0).steps == 20
    assert drive(phases(60), tmp_path / "d").steps == 20, "without a budget a plan stays as it is"


def test_schedule() -> None:
    phase = Phase("p", 100, warmup=0.1, cooldown=0.4, floor=0.1)
    factors = [loop.factor_of(phase, step, 100) for step in range(100)]
    assert factors[:2] == [0.1, 0.2]
    assert factors[9:60] == [1.0] * 51
    assert factors[60] < 1
    assert factors == factors[:10] + sorted(factors[10:], reverse=True)
    assert 0.1 < factors[-1] < 0.13
    cosine = [loop.factor_of(Phase("p", 100, warmup=0.0, cooldown=1.0, decay="cosine"), step, 100) for step in range(100)]
    assert cosine[50] == pytest.approx(0.5, abs=0.02)


PAIR = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
from tiny_learner import Tiny
from warmstart.engine import loop, parallel
shards, stop = sys.argv[3] == "fsdp", int(sys.argv[4])

def spoil(loss, step):
    if step == stop:
        os._exit(9)
    return loss

with parallel.crew() as crew:
    learner = Tiny(rank=crew.rank, world=crew.world, dropout=0.0, steps=(25,), spoil=spoil)
    learner.module[2] = torch.nn.Identity()  # batch statistics are those of a share
    time.sleep(crew.rank)  # one that comes late finds what the other has written meanwhile
    outcome = loop.run(learner, loop.How(Path(sys.argv[2]), 3, torch.device("cpu"), torch.float32, crew=crew, shards=shards))
    if crew.leads:
        print("LOSSES", json.dumps(outcome.history.curve("loss")[1]))
        print("VALIDATION", json.dumps(outcome.history.curve("validation/loss")[1]))
        bits = torch.cat([p.detach().flatten() for p in learner.module.parameters()])
        print("WEIGHTS", json.dumps([float.hex(p) for p in bits.tolist()]))
"""


def _pair(folder: Path, how: str, *, stop: int = -1) -> dict[str, Any]:
    """What two CPU processes over Gloo print, each with half of every batch; they are ended at the step ``stop``."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = folder.with_suffix(".py")
    script.write_text(PAIR)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(script), str(Path(__file__).parent.parent), str(folder), how, str(stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode == 0) == (stop < 0), done.stderr[-3000:]
    words = [line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("LOSSES", "VALIDATION", "WEIGHTS"))]
    return {name: json.loads(values) for name, values in words}


def _alone(folder: Path) -> tuple[Tiny, loop.Outcome]:
    learner = Tiny(dropout=0.0, steps=(25,))
    learner.module[2] = torch.nn.Identity()  # type: ignore[index, operator]
    return learner, drive(learner, folder)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_follow_the_curve_of_one(how: str, tmp_path: Path) -> None:
    two = _pair(tmp_path / "pair", how)
    _, one = _alone(tmp_path / "one")
    assert two["LOSSES"] == pytest.approx(one.history.curve("loss")[1], rel=1e-4)
    assert two["VALIDATION"][-1] == pytest.approx(one.history.curve("validation/loss")[1][-1], rel=1e-4)


def test_a_sharded_run_is_resumed_by_two_processes_or_by_one(tmp_path: Path) -> None:
    whole = _pair(tmp_path / "whole", "fsdp")
    assert not _pair(tmp_path / "cut", "fsdp", stop=13)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    resumed = _pair(tmp_path / "cut", "fsdp")
    assert (resumed["LOSSES"], resumed["WEIGHTS"]) == (whole["LOSSES"], whole["WEIGHTS"])
    learner, outcome = _alone(tmp_path / "other")
    assert outcome.history.curve("loss")[1] == pytest.approx(whole["LOSSES"], rel=1e-4)
    weights = [value for p in learner.module.parameters() for value in p.detach().flatten().tolist()]
    assert weights == pytest.approx([float.fromhex(value) for value in whole["WEIGHTS"]], rel=1e-3, abs=1e-5)


def test_what_cannot_be_sharded_says_so(tmp_path: Path) -> None:
    learner = Tiny()
    learner.shards = False
    with pytest.raises(BadOption, match="fsdp"):
        drive(learner, tmp_path, crew=Crew(0, 2), shards=True)


def test_sparkline() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁" or sparkline([3.0, 2.0, 1.0]) == "█▄▁"
    assert sparkline([]) == ""
    assert sparkline([1.0] * 100) == "▁" * 20
