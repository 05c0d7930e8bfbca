"""adapt: climb the ladder on labelled rows inside a time budget, and write the chosen model with everything that was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.errors import BadOption, BudgetTooSmall, CutRefused
from warmstart.core.recipe import Recipe
from warmstart.core.report import Report

if TYPE_CHECKING:
    from warmstart.core.errors import WarmstartError
    from warmstart.core.protocols import Strategy
    from warmstart.engine.choice import Choice
    from warmstart.engine.clock import Clock
    from warmstart.engine.continued import Verdict
    from warmstart.engine.dataset import Dataset
    from warmstart.engine.ladder import Ladder
    from warmstart.engine.model import Model
    from warmstart.engine.rungs import Candidate
    from warmstart.engine.step import Step
    from warmstart.engine.workbench import Workbench

PROBE_SHARE = 0.1
"""The probe gets at most this share of a budget that is too short for everything."""
STRUCTURED_SHARE = 0.5
"""The head of a structured task gets its share by predicted cost, but at least this one; and all of it where that is too little."""
CLASSIC_SHARE = 0.3
"""Of the budget, for the model without a body where there is a body too."""


def run(
    recipe: Recipe, *, data: Any = None, test: Any = None, out: Path, force: bool = False, quiet: bool = True, command: str = ""
) -> Report:
    """Adapt a model to labelled rows and write its folder.

    Args:
        recipe: Everything that decides the run. With a ``plan`` that an earlier run recorded, that plan is followed.
        data: Rows as an object (a frame, a Dataset) in place of ``recipe.data``.
        test: Test rows likewise.
        out: Model folder to write; ``OUT.partial`` beside it holds what an interrupted run resumes from.
        force: Overwrite ``out``, and start over where ``OUT.partial`` belongs to another run.
        quiet: No progress.
        command: The command as typed, for the report.

    Raises:
        InputError: What was given is wrong; nothing was started.
        RunError: The run failed; the same command resumes it.
    """
    from warmstart.engine.clock import Clock

    clock = Clock(None if recipe.plan else recipe.budget)  # before the frameworks, whose import counts
    from warmstart.engine import continued, dataset, device, rungs, sources, workspace

    space = workspace.Workspace(out, force=force)
    rungs.wanted(recipe)  # wrong options are told before anything is read
    device.dtype(recipe.precision, device.resolve(recipe.device))
    _time_left(clock, "starting")
    recipe, data, note = sources.resolve(recipe, data)
    continued.check(recipe)
    strategies = rungs.wanted(recipe)
    body = sources.body_folder(recipe) if any(strategy.serve_cost >= 1 for strategy, _ in strategies) else None
    recipe, data = sources.sized(recipe, data, body)
    rows = dataset.read(recipe, data, test, body=body)
    _time_left(clock, "starting and reading")
    rows.warnings.extend([note] if note else [])
    with space.alone():
        space.open(recipe, rows.hash, clock)
        ladder = _ladder(recipe, rows, clock, space.work, quiet)
        climbed = _climb(recipe, ladder, strategies)
        rows.warnings.extend([climbed.note] if climbed.note else [])
        report = _finish(recipe, rows, ladder, climbed, space, command)
    space.publish()
    return report


def _time_left(clock: Clock, done: str) -> None:
    """Say it at once where there cannot be a result in time any more.

    Raises:
        BudgetTooSmall: What a result takes after the climb is more than what is left.
    """
    from warmstart.engine import ladder

    if clock.remaining() < ladder.QUIET_AFTER:
        raise BudgetTooSmall(
            f"{done} took {clock.elapsed():.0f} s of {clock.budget:g} s, and writing a result takes {ladder.QUIET_AFTER:.0f} s",
            "time for at least one rung",
            "give more, for example --budget 5m",
        )


def _bench(recipe: Recipe, rows: Dataset, quiet: bool) -> Workbench:
    from warmstart.engine import activations, device, workbench

    where = device.resolve(recipe.device)
    return workbench.Workbench(
        inputs=rows.train.inputs,
        targets=rows.targets,
        labels=rows.labels,
        task=rows.task,
        modality=rows.modality,
        backbone_name=recipe.backbone,
        backbone_options=recipe.options.get("backbone", {}),
        device=where,
        precision=device.dtype(recipe.precision, where),
        max_length=recipe.max_length,
        seed=recipe.seed,
        store=activations.Store(),
        quiet=quiet,
        views=recipe.views,
    )


def _ladder(recipe: Recipe, rows: Dataset, clock: Clock, folder: Path, quiet: bool) -> Ladder:
    from warmstart.engine import ladder, splits

    found = ladder.Ladder(
        bench=_bench(recipe, rows, quiet),
        splits=splits.folds(rows.targets, rows.train.groups, seed=recipe.seed),
        clock=clock,
        folder=folder,
        n_test=len(rows.test.inputs) if rows.test is not None else 0,
        follow={step["label"]: step for step in recipe.plan["rungs"]} if recipe.plan else None,
        kept_point=recipe.plan.get("keep_point"),
    )
    found.bench.hint_rows = found.splits[0][0]
    return found


@dataclass(frozen=True)
class _Climbed:
    """Every rung, climbed or passed over; the labels of those that may be chosen; what going on with pre-training brought; and a sentence
    where there is nothing above the constant answer."""

    steps: list[Step]
    eligible: set[str]
    continued: Verdict | None = None
    continued_plan: dict[str, Any] | None = None
    note: str = ""


def _climb(recipe: Recipe, ladder: Ladder, strategies: list[tuple[Strategy, bool]]) -> _Climbed:
    from warmstart.engine import rungs

    alone = recipe.strategy != "auto"
    candidates = rungs.expand([s for s in strategies if s[0].serve_cost < 1], ladder.bench, alone=alone)
    share = CLASSIC_SHARE if any(s.serve_cost >= 1 for s, _ in strategies) else 1.0  # most of the time is for what starts from the body
    ladder.reserved = max(0.0, ladder.left()) * (1 - share) if ladder.follow is None and share < 1 else 0.0
    steps = [ladder.climb(rung.label, rung.strategy, seconds=ladder.left() * share) for rung in candidates]
    ladder.reserved = 0.0
    bodies = rungs.expand([s for s in strategies if s[0].serve_cost >= 1], ladder.bench, alone=alone)
    verdict, plan, bodies = _go_on(recipe, ladder, bodies)
    above = _climb_bodies(recipe, ladder, bodies, steps)
    if share < 1 and ladder.follow is None and not any(step.folds for step in above):  # all the time is theirs after all
        steps = [ladder.widened(step) for step in steps]
    steps += [*([verdict.loser] if verdict is not None and verdict.loser is not None else []), *above]
    eligible = {rung.label for rung in [*candidates, *bodies] if rung.eligible}
    note = ""
    found = any(step.folds and step.label in eligible and step.strategy.order > 0 for step in steps) or recipe.strategy == "majority"
    if not found and not (note := _constant(recipe, ladder, steps, eligible)):
        raise _nothing(recipe, ladder, steps, [*candidates, *bodies])
    return _Climbed(steps, eligible, verdict, plan, note)


def _without_a_body(recipe: Recipe, steps: list[Step]) -> bool:
    """Whether nothing above the majority was climbed because there is no body, and not for want of time."""
    return recipe.backbone == "none" and all(isinstance(step.error, CutRefused) for step in steps if step.strategy.order > 0)


def _constant(recipe: Recipe, ladder: Ladder, steps: list[Step], eligible: set[str]) -> str:
    """What is said of the majority where it is the only rung that a task has without a body; empty where it is no result."""
    if recipe.strategy != "auto" or not _without_a_body(recipe, steps) or not any(s.folds and s.label in eligible for s in steps):
        return ""
    return (
        f"without a body {ladder.bench.task.name} has nothing but majority: this model gives every input the same answer;"
        " for one that looks at its input, name a pre-trained body: --backbone FOLDER"
    )


def _nothing(recipe: Recipe, ladder: Ladder, steps: list[Step], candidates: list[Candidate]) -> WarmstartError:
    """Why there is no result."""
    failed = [step.error for step in steps if step.error is not None]
    if recipe.strategy != "auto" and failed:
        return failed[0]
    reasons = "; ".join(f"{step.label}: {step.note}" for step in steps if step.note)
    if _without_a_body(recipe, steps):
        what = f"{ladder.bench.task.name} without a backbone{reasons and f' ({reasons})'}"
        return BadOption(what, "a pre-trained body", "name one: --backbone FOLDER")
    return BudgetTooSmall(f"no rung could be climbed ({reasons})", "time for at least one", _enough(ladder, candidates))


def _enough(ladder: Ladder, candidates: list[Candidate]) -> str:
    """The budget that the cheapest of these rungs would have fitted into, as a piece of advice."""
    import math

    from warmstart.engine import rungs

    needed = min(
        (rungs.needed(ladder, rung.strategy) for rung in candidates if rung.eligible and rung.strategy.order > 0), default=math.inf
    )
    budget = f"at least --budget {math.ceil(needed)}s" if math.isfinite(needed) else "more, for example --budget 5m"
    return f"give {budget}"


def _go_on(recipe: Recipe, ladder: Ladder, bodies: list[Candidate]) -> tuple[Verdict | None, dict[str, Any] | None, list[Candidate]]:
    """Pre-training on unlabelled data, where it was asked for; the rungs are then those of the better body."""
    from dataclasses import replace

    from warmstart.core import registry
    from warmstart.engine import continued
    from warmstart.engine.rungs import Candidate

    recorded = recipe.plan.get("unlabelled")
    if recipe.unlabelled is None or not bodies or (recorded and not recorded["kept"]):
        return None, recorded, bodies
    probe = next((rung for rung in bodies if rung.strategy.worth == 0), None)
    known = probe or Candidate("linear_probe", registry.create("strategies", "linear_probe"), False)
    verdict, plan = continued.climb(recipe, ladder, known)
    if verdict.kept and verdict.after is not None and probe is not None:
        bodies = [replace(rung, label=verdict.after.label) if rung is probe else rung for rung in bodies]
    return verdict, plan, bodies


def _climb_bodies(recipe: Recipe, ladder: Ladder, bodies: list[Candidate], rivals: list[Step]) -> list[Step]:
    """The probe first, then as many of the rungs that move the body as there is time for. ``rivals`` were climbed before."""
    from warmstart.engine import choice

    if not bodies:
        return []
    probes = [rung for rung in bodies if rung.strategy.worth == 0]
    movers = [rung for rung in bodies if rung.strategy.worth > 0]
    few = recipe.strategy == "auto" and len(ladder.bench.inputs) < choice.FEW_ROWS
    starved = False
    kept = movers
    if ladder.follow is None:
        decided = ladder.decided("bodies", lambda: _afford(ladder, probes, movers, few=few))
        kept = [rung for rung in movers if rung.label in decided["kept"]]
        starved, ladder.kept_point = decided["starved"], decided["keep_point"]
    ladder.bench.keep_point = ladder.kept_point
    below = [_climb_probe(ladder, rung, kept, starved=starved) for rung in probes]
    above = _climb_favourite(ladder, movers, [*rivals, *below]) if few else _climb_movers(ladder, movers, kept)
    if not any(step.folds for step in above):  # all the time is its own after all
        below = [ladder.widened(step) if starved or step.folds else step for step in below]
    return below + above


def _climb_probe(ladder: Ladder, rung: Candidate, above: list[Candidate], *, starved: bool) -> Step:
    """Within its share of the time, where that is short; ``above`` are the rungs that follow."""
    from warmstart.engine import answers, rungs

    share = _probe_share(ladder)
    structured = answers.is_structured(ladder.bench.task)
    if structured and ladder.follow is None:  # its head is most of the work, and what all others start from
        share = max(STRUCTURED_SHARE, rungs.share(ladder, [rung], above))
        ladder.reserved = max(0.0, ladder.left()) * (1 - share) if starved else rungs.total(ladder, above)
    step = ladder.climb(rung.label, rung.strategy, seconds=ladder.left() * (share if starved else 1.0))
    ladder.reserved = 0.0
    if structured and starved and not step.folds and step.error is None:
        step = ladder.climb(rung.label, rung.strategy, seconds=ladder.left())
    if step.folds:
        ladder.bench.probed(step.settings)
        ladder.bench.head_epochs = step.settings.get("epochs", 0.0)
    else:  # a recorded plan does not try it again, so nothing of it may stay
        ladder.bench.hint, ladder.bench.probes = None, {}
    return step


def _probe_share(ladder: Ladder) -> float:
    return PROBE_SHARE if ladder.single else 4 * PROBE_SHARE  # a probe on one fold of several is no estimate to build on


def _by_worth(movers: list[Candidate]) -> list[Candidate]:
    """Those that may be chosen first, the worthiest before the others."""
    return sorted(movers, key=lambda rung: (not rung.eligible, rung.strategy.worth))


def _climb_movers(ladder: Ladder, movers: list[Candidate], kept: list[Candidate]) -> list[Step]:
    """Those there is time for, in order, on more splits where they turned out cheaper; then those that were given up, in what time is left.

    These are not shortened where another came to something: it would be chosen by few held rows, if it were, over one that had its time.
    """
    from warmstart.engine import rungs

    climbed = {}
    for i, rung in enumerate(kept):
        ladder.reserved = rungs.total(ladder, kept[i + 1 :]) if ladder.follow is None else 0.0
        climbed[rung.label] = ladder.climb(rung.label, rung.strategy, seconds=ladder.left())
    for rung in _by_worth(kept):
        climbed[rung.label] = ladder.deepened(climbed[rung.label])
    # Rungs turn out dearer or cheaper than predicted; what time is left goes to those that were given up.
    for rung in sorted(movers, key=lambda r: r.strategy.worth):
        if rung.label not in climbed:
            whole = any(step.folds for step in climbed.values())
            climbed[rung.label] = ladder.deepened(ladder.climb(rung.label, rung.strategy, seconds=ladder.left(), whole=whole))
    return [climbed[rung.label] for rung in movers]


def _climb_favourite(ladder: Ladder, movers: list[Candidate], rivals: list[Step]) -> list[Step]:
    """With very few rows: the worthiest rung alone, which is what the prior would choose among them.

    Where test rows will give the final numbers, it is measured on no more splits than the choice needs.
    """
    from warmstart.engine import choice
    from warmstart.engine.step import Step

    climbed = [step for step in rivals if step.folds]

    def enough(step: Step, folds: int) -> bool:
        return choice.settled(ladder, step, folds, climbed)

    steps: dict[str, Step] = {}
    found = ""
    for rung in _by_worth(movers):
        if found and ladder.follow is None:
            note = f"fewer than {choice.FEW_ROWS} rows cannot tell it from {found}"
            steps[rung.label] = Step(rung.label, rung.strategy, note=note)
            continue
        steps[rung.label] = ladder.climb(rung.label, rung.strategy, seconds=ladder.left(), enough=enough if ladder.n_test else None)
        found = rung.label if steps[rung.label].folds else found
    return [steps[rung.label] for rung in movers]


def _afford(ladder: Ladder, probes: list[Candidate], movers: list[Candidate], *, few: bool) -> dict[str, Any]:
    """Which rungs that move the body there is time for, whether the probe must make do with less, and the cut that it keeps."""
    from warmstart.engine import answers, rungs

    left = ladder.left()
    kept = rungs.affordable(ladder, _by_worth(movers)[:1] if few else movers, left)
    starved = rungs.total(ladder, [*probes, *kept]) > left
    if starved and not answers.is_structured(ladder.bench.task):  # not for rungs that would not fit either way
        starved = any(ladder.fits(rung.strategy, left * (1 - _probe_share(ladder))) for rung in movers)
    return {"kept": [rung.label for rung in kept], "starved": starved, "keep_point": rungs.cut_of(ladder, kept)}


def _finish(recipe: Recipe, rows: Dataset, ladder: Ladder, climbed: _Climbed, space: Any, command: str) -> Report:
    """Choose, refit, save, load what was saved, and measure that on the test rows, once."""
    from warmstart.engine import choice, continued, folders, model, outcome

    folder = space.partial
    loser = None if climbed.continued is None else climbed.continued.loser
    rejected = () if loser is None else (loser.label,)
    chosen = choice.choose(ladder, climbed.steps, prefer=recipe.prefer, eligible=climbed.eligible, rejected=rejected)
    if climbed.continued is not None:
        chosen = continued.told(chosen, climbed.continued)
    ladder.bench.keep_point = None
    predictor = ladder.refit(chosen.chosen.step)
    ladder.bench.remember_speed()
    predictor.save(folder, labels=rows.labels, temperature=chosen.chosen.temperature)
    card = folders.write_card(folder, recipe=recipe, rows=rows, bench=ladder.bench, chosen=chosen.chosen)
    saved = model.load(folder, device=recipe.device)
    if rows.test is not None and rows.test_targets is not None:
        found = outcome.on_test(saved, rows.test.inputs, rows.test_targets, rows.test.targets or [], rows.test.rows)
    else:
        found = outcome.out_of_fold(chosen.chosen, rows)
    report = _report(recipe, rows, ladder, chosen, found, saved, command, space.out)
    report.warnings.extend(folders.notes(ladder.bench, climbed.steps))
    plan: dict[str, Any] = {"rungs": [step.record() for step in climbed.steps], "keep_point": ladder.kept_point}
    if climbed.continued_plan is not None:
        plan["unlabelled"] = climbed.continued_plan
    folders.write_report(folder, card=card, recipe=recipe, plan=plan, report=report)
    return report


def _report(recipe: Recipe, rows: Dataset, ladder: Ladder, chosen: Choice, found: Any, saved: Model, command: str, out: Path) -> Report:
    from warmstart.engine import answers, dataset, device, outcome, review

    bench = ladder.bench
    with_body = any(rung.score is not None and rung.strategy == "linear_probe" for rung in chosen.rungs)
    structured = answers.is_structured(rows.task)
    curve, advice = review.learning_curve(bench, ladder.splits[0]) if with_body and not structured else ([], "")
    named = [] if structured else rows.task.decode(dataset.certain(rows.targets, len(rows.labels)), rows.labels)
    names = [" | ".join(n) if isinstance(n, list) else n for n in named]
    return Report(
        verb="adapt",
        model=str(out),
        task=rows.task.name,
        backbone=recipe.backbone if chosen.chosen.step.strategy.serve_cost >= 1 else "none",
        strategy=chosen.chosen.step.label,
        main_metric=rows.task.main_metric,
        measured_on=found.name,
        metrics=outcome.measure(found, saved, recipe.seed),
        data=dataset.summary(rows, bench if with_body else None),
        budget_seconds=recipe.budget,
        ladder=chosen.rungs,
        comparisons=chosen.comparisons,
        verdict=chosen.verdict,
        learning_curve=curve,
        learning_curve_sentence=advice,
        **outcome.drawings(found, saved),
        errors=outcome.errors(found, saved, bench if with_body else None, names),
        environment=device.environment(bench.device, bench.precision),
        command=command,
        seed=recipe.seed,
        warnings=list(rows.warnings),
        seconds=ladder.clock.elapsed(),
        peak_bytes=device.peak_bytes(),
    )
