"""pretrain: train a body on data without labels, or with them, and write the folder that adapt starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.errors import BadOption, DataError, UnknownPart
from warmstart.core.recipe import PretrainRecipe
from warmstart.core.report import PretrainReport

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner, Objective
    from warmstart.engine.clock import Clock
    from warmstart.engine.learner import Setting
    from warmstart.engine.parallel import Crew
    from warmstart.engine.workspace import Workspace

AFTER_SHARE, AFTER_SECONDS = 0.03, 3.0
"""Of a budget, kept for measuring, drawing and saving."""


def run(
    recipe: PretrainRecipe,
    *,
    data: Any = None,
    validation: Any = None,
    out: Path,
    force: bool = False,
    quiet: bool = True,
    command: str = "",
) -> PretrainReport | None:
    """Pre-train a body and write its folder.

    Args:
        recipe: Everything that decides the run. With a ``plan`` that an earlier run recorded, that plan is followed.
        data: Data as an object in place of ``recipe.data``.
        validation: Likewise.
        out: Folder to write; ``OUT.partial`` beside it holds what an interrupted run resumes from.
        force: Overwrite ``out``, and start over where ``OUT.partial`` belongs to another run.
        quiet: No progress, no plan.
        command: The command as typed, for the report.

    Returns:
        What was measured; None in a process that ``torchrun`` started beside the first.

    Raises:
        InputError: What was given is wrong; nothing was started.
        RunError: The run failed; the same command resumes it.
    """
    from warmstart.engine.clock import Clock

    clock = Clock(None if recipe.plan else recipe.budget)
    objective = _objective(recipe)
    from warmstart.engine import parallel, workspace

    with parallel.crew() as crew:
        space = workspace.Workspace(out, force=force or not crew.leads)
        if not crew.leads:
            _follow(recipe, objective, space, crew, data, validation)
            return None
        with space.alone():
            space.open(recipe, _identity(recipe.data if data is None else data), clock)
            learner = _prepare(recipe, objective, space, crew, clock, data, validation, quiet)
            report = _train(recipe, learner, space, crew, clock, command, quiet)
        space.publish()
    return report


def _objective(recipe: PretrainRecipe) -> Objective:
    from warmstart.core import registry

    if not recipe.objective:
        raise BadOption("no --objective was given", f"one of {', '.join(registry.parts('objectives'))}", "see: warmstart parts objectives")
    found: Objective = registry.create("objectives", recipe.objective, options=recipe.options.get("objective"))
    if recipe.modality != "auto" and recipe.modality not in found.modalities:
        raise UnknownPart(
            f"{recipe.objective} does not learn from {recipe.modality}", f"one of {', '.join(found.modalities)}", "correct it"
        )
    return found


def _identity(data: Any) -> str:
    """What tells one input from another, without reading all of it: names and sizes of files, or the object's own description."""
    from warmstart.engine.activations import content_key

    if not isinstance(data, str | Path):
        return content_key(repr(data)[:10_000].encode()).hex()
    path = Path(data)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    told = [(str(f.relative_to(path)), f.stat().st_size if f.exists() else -1) for f in files]
    return content_key(repr(told).encode()).hex()


def _setting(recipe: PretrainRecipe, space: Workspace, crew: Crew, data: Any, validation: Any) -> Setting:
    from warmstart.engine import backbone, device, learner

    where = device.resolve(recipe.device)
    return learner.Setting(
        data=recipe.data if data is None else data,
        validation=recipe.validation if validation is None else validation,
        folder=space.work,
        column=recipe.column,
        skip_bad=recipe.skip_bad,
        start=backbone.find(recipe.start)[1] if recipe.start is not None else None,
        size=recipe.size,
        modality_options=recipe.options.get("modality", {}),
        device=where,
        precision=device.dtype(recipe.precision, where),
        seed=recipe.seed,
        rank=crew.rank,
        world=crew.world,
    )


def _prepare(
    recipe: PretrainRecipe, objective: Objective, space: Workspace, crew: Crew, clock: Clock, data: Any, validation: Any, quiet: bool
) -> Learner:
    """The learner as planned: by a recorded plan, by what an interrupted run decided, or now."""
    from dataclasses import replace

    from warmstart.engine import store

    setting = replace(_setting(recipe, space, crew, data, validation), quiet=quiet)
    decided = _decided(space.work) or recipe.plan
    budget = None if recipe.budget is None else _training_seconds(recipe.budget, clock)
    setting = replace(setting, seconds=budget, settings=decided.get("settings", {}))
    learner = objective.prepare(setting)
    if decided and decided.get("corpus") not in (None, learner.corpus.hash):
        raise DataError(
            "the data are not those that this run, or this recipe, began with", "the same data", "use another --out, or --force"
        )
    if budget is not None:
        budget = decided.get("seconds", _training_seconds(recipe.budget or 0.0, clock))
    plan = {"settings": learner.settings, "corpus": learner.corpus.hash, "seconds": budget}
    store.write_json(space.work / "plan.json", plan)
    crew.wait()
    if not quiet:
        print(_planned(recipe, learner), file=sys.stderr)
    return learner


def _follow(recipe: PretrainRecipe, objective: Objective, space: Workspace, crew: Crew, data: Any, validation: Any) -> None:
    """What a process does that ``torchrun`` started beside the first: the same training, and nothing written."""
    from dataclasses import replace

    from warmstart.engine import loop

    crew.wait()
    decided = _decided(space.work)
    setting = replace(_setting(recipe, space, crew, data, validation), settings=decided["settings"])
    learner = objective.prepare(setting)
    loop.run(learner, _how(recipe, setting, decided, crew, None))
    crew.wait()


def _how(recipe: PretrainRecipe, setting: Setting, decided: dict[str, Any], crew: Crew, progress: str | None) -> Any:
    from warmstart.engine import loop
    from warmstart.engine.clock import replans

    recorded = recipe.plan.get("replans")
    return loop.How(
        folder=setting.folder,
        seed=recipe.seed,
        device=setting.device,
        precision=setting.precision,
        seconds=decided.get("seconds"),
        replans=None if recorded is None else replans(recorded),
        crew=crew,
        progress=progress,
    )


def _train(
    recipe: PretrainRecipe, learner: Learner, space: Workspace, crew: Crew, clock: Clock, command: str, quiet: bool
) -> PretrainReport:
    from warmstart.engine import device, loop, pretrained

    setting = _setting(recipe, space, crew, None, None)
    outcome = loop.run(learner, _how(recipe, setting, _decided(space.work), crew, None if quiet else recipe.objective))
    crew.wait()
    learner.module.eval()
    learner.save(space.partial)
    plan = {"settings": learner.settings, "replans": outcome.replans, "corpus": learner.corpus.hash}
    report = pretrained.report(
        recipe, learner, outcome, model=str(space.out), environment=device.environment(setting.device, setting.precision), command=command
    )
    return pretrained.write(space.partial, recipe=recipe, learner=learner, plan=plan, report=report, seconds=clock.elapsed())


def _decided(folder: Path) -> dict[str, Any]:
    """What this run, or the interrupted one that it resumes, decided before it began to train."""
    from warmstart.engine import store

    return store.read_object(folder / "plan.json")


def _training_seconds(budget: float, clock: Clock) -> float:
    return max(0.0, clock.remaining() - AFTER_SECONDS - AFTER_SHARE * budget)


def _planned(recipe: PretrainRecipe, learner: Learner) -> str:
    """The plan in a few lines, before anything long begins."""
    plan = learner.plan
    read = ", ".join(f"{count:,} {noun}" for noun, count in learner.corpus.items.items())
    lines = [
        f"{recipe.objective}: {plan.parameters:,} parameters; {learner.corpus.source}: {read}",
        f"plan: {plan.steps:,} steps, {plan.count:,} {plan.unit}, about {plan.seconds:.0f} s and {plan.memory_bytes / 2**20:,.0f} MiB",
    ]
    left_out = [f"note: {count:,} left out: {reason}" for reason, count in learner.corpus.left_out.items()]
    return "\n".join([*lines, *plan.notes, *(f"note: {note}" for note in learner.corpus.notes), *left_out])
