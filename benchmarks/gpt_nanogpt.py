"""gpt on characters of tiny Shakespeare against nanoGPT's CPU setting, both in warmstart's own loop.

    python benchmarks/gpt_nanogpt.py input.txt [--run theirs|ours|equal] [--steps N] [--set objective.lr=0.02 ...]

``theirs`` is the option set in nanogpt.toml. ``ours`` is the default ``tiny`` shape of the same depth and width, with their context,
for as many steps as bring the loss to theirs; ``equal`` trains it for as many steps as take as long as theirs, by the speed of the two
runs before it (or for ``--steps``). One JSON line each. The loss is that of all held-out windows (the last tenth of the text); ``curve``
has seconds of training and the loss on some of these windows. Times are of the training steps, of everything by the clock, and of
everything by processor time, which other programs disturb less (set OMP_NUM_THREADS=1 to read it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from warmstart.core import recipe as recipes
from warmstart.core.recipe import PretrainRecipe
from warmstart.core.report import PretrainReport
from warmstart.stages import pretrain

STEPS = {"ours": 250, "equal": 2000}


def main() -> None:
    """Run one or all of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--run", choices=("theirs", "ours", "equal"), action="append")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args()
    theirs = recipes.read(Path(__file__).with_name("nanogpt.toml"), PretrainRecipe())
    seen: dict[str, PretrainReport] = {}
    for name in given.run or ("theirs", "ours", "equal"):
        recipe = theirs
        if name != "theirs":
            sets = ["size=tiny", "seed=1", "objective=gpt", "objective.tokenizer=characters", "objective.context=64"]
            recipe = recipes.with_sets(PretrainRecipe(), [*sets, f"objective.steps={given.steps or in_equal_time(seen, name)}"])
        recipe = recipes.with_sets(recipe, [f"data={given.text}", *given.sets])
        folder = Path(tempfile.mkdtemp())
        began, processor = time.perf_counter(), time.process_time()
        report = pretrain.run(recipe, out=folder / "body")
        wall = time.perf_counter() - began
        shutil.rmtree(folder)
        if report is not None:
            seen[name] = report
            loss = report.metrics["validation_loss"]
            row = {"run": name, "loss": round(loss.value, 4), "low": round(loss.low, 4), "high": round(loss.high, 4)}
            seconds = {"training_seconds": round(report.training_seconds, 1), "wall_seconds": round(wall, 1)}
            seconds["processor_seconds"] = round(time.process_time() - processor, 1)
            sizes = {"steps": report.steps, "tokens": report.count, "parameters": report.parameters}
            print(json.dumps({**row, **seconds, **sizes, "curve": curve(report)}), flush=True)


def in_equal_time(seen: dict[str, PretrainReport], name: str) -> int:
    """Steps of ours that take the time of theirs, where both were seen."""
    if name != "equal" or not {"theirs", "ours"} <= set(seen):
        return STEPS[name]
    return round(seen["theirs"].training_seconds / seen["ours"].training_seconds * seen["ours"].steps)


def curve(report: PretrainReport) -> list[tuple[float, float]]:
    """Seconds of training and validation losses; every step is taken to last as long as another."""
    each = report.training_seconds / report.steps
    return [(round(step * each, 1), round(loss, 3)) for step, loss in zip(*report.curves["validation/loss"], strict=True)]


if __name__ == "__main__":
    main()
