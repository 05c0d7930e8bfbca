"""Pre-training that goes on with the user's own unlabelled data before the rungs that move the body, kept only where it measurably helped.

Going on with text of the task's own domain often pays where labels are few (Gururangan et al. 2020), and sometimes costs. So the frozen
probe is measured on the same held-out rows with the body as it came and with the body that went on, row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warmstart.core import registry
from warmstart.core.errors import BudgetTooSmall, ColumnNotFound, DataError, FileUnreadable
from warmstart.core.protocols import Objective
from warmstart.core.recipe import Recipe
from warmstart.core.report import Comparison
from warmstart.engine import bodies, choice, clock, learner, loop, sources, statistics, store
from warmstart.engine.corpus import Texts
from warmstart.engine.ladder import Ladder
from warmstart.engine.rungs import Candidate
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench

SHARE = 0.4
"""Of the time that is left, for going on with pre-training; the rest is for finding out, and for the rungs."""

SUFFIX = ", continued"


@dataclass(frozen=True)
class Verdict:
    """The probe as the body came (``before``) and after going on (``after``), whether it is kept, and why in one sentence."""

    before: Step
    after: Step | None
    kept: bool
    comparison: Comparison | None
    sentence: str

    @property
    def loser(self) -> Step | None:
        """The probe of the body that is not used any more, where there was one."""
        return self.before if self.kept else self.after


def check(recipe: Recipe) -> None:
    """Look at the unlabelled data before anything long begins: they are there, hold something, and are of the rows' kind.

    Raises:
        InputError: They are not; says why.
    """
    path, recorded = recipe.unlabelled, recipe.plan.get("unlabelled")
    if path is None or (recorded and not recorded["kept"]):
        return
    if recipe.modality == "text":
        if next(Texts(path, skip_bad=recipe.skip_bad).pieces(), None) is None:
            raise DataError(f"the unlabelled data {path} hold no text", "at least one document", "check the file")
        return
    modality = registry.create("modalities", recipe.modality, options=recipe.options.get("modality"))
    noun = getattr(modality, "plural", modality.name)
    if Path(path).suffix.lower() == ".npy" and Path(path).is_file():
        return
    try:
        table = sources.opened(path, modality, skip_bad=recipe.skip_bad)
        modality.infer(table.columns, {})
    except (ColumnNotFound, FileUnreadable) as error:
        given = f"the unlabelled data {path} hold no {noun} ({error.given})"
        raise DataError(given, f"{noun}, as the labelled rows are", f"give {noun} to --unlabelled") from None


def climb(recipe: Recipe, ladder: Ladder, probe: Candidate) -> tuple[Verdict, dict[str, Any]]:
    """Go on with pre-training, measure, and leave the better body on the ladder's bench.

    Returns:
        The verdict, and what a recorded plan needs to do the same again.

    Raises:
        InputError: The unlabelled data are wrong.
    """
    recorded = (recipe.plan or {}).get("unlabelled", {})
    original = ladder.bench
    before = ladder.climb(probe.label, probe.strategy, seconds=ladder.left() * (1 - SHARE) / 2)
    try:
        bench, plan = _go_on(recipe, ladder, recorded)
    except BudgetTooSmall as error:
        return Verdict(before, None, False, None, f"The body did not go on with pre-training: {error.given}."), {"kept": False}
    ladder.bench = bench
    after = ladder.climb(probe.label + SUFFIX, probe.strategy, seconds=ladder.left())
    comparison = _compare(ladder, before, after)
    decided = recorded or ladder.decided("unlabelled", lambda: {"kept": comparison is not None and comparison.low > 0})
    kept = bool(decided["kept"])
    if not kept:
        ladder.bench = original
    return Verdict(before, after, kept, comparison, _sentence(recipe, comparison, kept)), {**plan, "kept": kept}


def _go_on(recipe: Recipe, ladder: Ladder, recorded: dict[str, Any]) -> tuple[Workbench, dict[str, Any]]:
    """A bench like the ladder's, on the body that went on; and settings and shortenings of its training."""
    bench, folder = ladder.bench, ladder.folder / "continued"
    bodies.require_trainable(bench.backbone.folder)
    name = recipe.objective if recipe.objective != "auto" else bench.modality.objective
    objective: Objective = registry.create("objectives", name, options=recipe.options.get("objective"))
    begun = store.read_object(folder / "plan.json") or recorded
    seconds = begun.get("seconds") if begun else ladder.left() * SHARE
    setting = learner.Setting(
        data=recipe.unlabelled,
        folder=folder,
        skip_bad=recipe.skip_bad,
        start=bench.backbone.folder,
        seconds=seconds if seconds is not None and math.isfinite(seconds) else None,
        modality_options=recipe.options.get("modality", {}),
        settings=begun.get("settings", {}),
        device=bench.device,
        precision=bench.precision,
        seed=recipe.seed,
        quiet=bench.quiet,
    )
    body = folder / "body"
    outcome = store.read_object(folder / "done.json")
    if not outcome:
        student = objective.prepare(setting)
        store.write_json(folder / "plan.json", {"settings": student.settings, "seconds": setting.seconds})
        how = loop.How(
            folder=folder,
            seed=recipe.seed,
            device=bench.device,
            precision=bench.precision,
            seconds=setting.seconds,
            replans=clock.replans(recorded["replans"]) if recorded else None,
            progress=None if bench.quiet else f"{name} on unlabelled data",
        )
        done = loop.run(student, how)
        student.module.eval()
        body.mkdir(parents=True, exist_ok=True)
        student.save(body)
        outcome = {"settings": student.settings, "replans": done.replans, "steps": done.steps, "seconds": done.seconds}
        store.write_json(folder / "done.json", outcome)
    went_on = replace(bench, backbone_name=str(body), backbone_options={}, hint=None, probes={}, measured=dict(bench.measured))
    went_on.backbone.name = f"{bench.backbone.name}, continued on {Path(str(recipe.unlabelled)).name}"
    went_on.backbone.licence = bench.backbone.licence
    return went_on, {"settings": outcome["settings"], "replans": outcome["replans"], "seconds": setting.seconds}


def _compare(ladder: Ladder, before: Step, after: Step) -> Comparison | None:
    if not (before.folds and after.folds):
        return None
    a, b = choice.score(ladder, after), choice.score(ladder, before)
    n = min(len(a.scores), len(b.scores))
    rows = a.rows[:n]
    clusters = rows if len(set(rows.tolist())) < n else None
    bench = ladder.bench
    return statistics.compare(
        after.label, before.label, a.scores[:n], b.scores[:n], clusters=clusters, seed=bench.seed, metric_name=bench.task.main_metric
    )


def _sentence(recipe: Recipe, comparison: Comparison | None, kept: bool) -> str:
    name = Path(str(recipe.unlabelled)).name
    if comparison is None:
        return f"Whether pre-training on {name} helped could not be measured in the time, so the body was used as it came."
    outcome = "helped, so the rungs start from there" if kept else "did not measurably help, so the body was used as it came"
    return f"Going on with pre-training on {name} {outcome}: {comparison.sentence}."


def told(chosen: choice.Choice, verdict: Verdict) -> choice.Choice:
    """The choice with the sentence and the comparison of the verdict added."""
    comparisons = chosen.comparisons + ([verdict.comparison] if verdict.comparison is not None else [])
    return replace(chosen, comparisons=comparisons, verdict=[*chosen.verdict, verdict.sentence])
