"""pretrain: train a body on data without labels, or with them, and write the folder that adapt starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.errors import BadOption, DataError, UnknownPart
from warmstart.core.recipe import PretrainRecipe
from warmstart.core.report import PretrainReport
from warmstart.core.words import counted

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner, Objective
    from warmstart.engine.clock import Clock
    from warmstart.engine.learner import Setting
    from warmstart.engine.parallel import Crew
    from warmstart.engine.workspace import Workspace

AFTER_SHARE, AFTER_SECONDS = 0.03, 3.0
"""Of a budget, kept for measuring, drawing and saving."""

DECIDED = "plan.json"
"""In the working folder: what was decided before training began."""


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
        setting = _setting(recipe, data, validation, folder=space.work, crew=crew, quiet=quiet)
        if not crew.leads:
            _follow(recipe, objective, setting, crew)
            return None
        with space.alone():
            space.open(recipe, _identity(setting.data), clock)
            learner, decided = _prepare(recipe, objective, setting, clock)
            if not quiet:
                print(_planned(recipe, learner), file=sys.stderr)
            crew.wait()
            report = _train(recipe, learner, setting, decided, space, crew, clock, command)
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


def _setting(recipe: PretrainRecipe, data: Any, validation: Any, *, folder: Path, crew: Crew, quiet: bool) -> Setting:
    from warmstart.engine import device, learner

    where = device.resolve(recipe.device)
    return learner.Setting(
        data=recipe.data if data is None else data,
        validation=recipe.validation if validation is None else validation,
        folder=folder,
        column=recipe.column,
        skip_bad=recipe.skip_bad,
        start=_start(recipe),
        size=recipe.size,
        modality_options=recipe.options.get("modality", {}),
        device=where,
        precision=device.dtype(recipe.precision, where),
        seed=recipe.seed,
        rank=crew.rank,
        world=crew.world,
        quiet=quiet,
    )


def _start(recipe: PretrainRecipe) -> Path | None:
    """The folder of the body to go on from, which must be one that can be trained."""
    from warmstart.engine import backbone, bodies

    if recipe.start is None:
        return None
    folder = backbone.find(recipe.start)[1]
    bodies.require_trainable(folder)
    return folder


def _prepare(recipe: PretrainRecipe, objective: Objective, setting: Setting, clock: Clock) -> tuple[Learner, dict[str, Any]]:
    """The learner, and what was decided before training: by a recorded plan, by an interrupted run, or now; written down for a resumed run.

    Raises:
        DataError: The data are not those that were decided for.
    """
    from dataclasses import replace

    from warmstart.engine import store

    before = store.read_object(setting.folder / DECIDED) or recipe.plan
    learner = objective.prepare(replace(setting, seconds=_training_seconds(recipe, clock), settings=before.get("settings", {})))
    if before.get("corpus") not in (None, learner.corpus.hash):
        given = "the data are not those that this run, or this recipe, began with"
        raise DataError(given, "the same data", "use another --out, or --force")
    seconds = _training_seconds(recipe, clock)  # preparing took its share
    if seconds is not None:
        seconds = before.get("seconds", seconds)
    decided = {"settings": learner.settings, "corpus": learner.corpus.hash, "seconds": seconds}
    store.write_json(setting.folder / DECIDED, decided)
    return learner, decided


def _follow(recipe: PretrainRecipe, objective: Objective, setting: Setting, crew: Crew) -> None:
    """What a process does that ``torchrun`` started beside the first: the same training, and nothing written."""
    from dataclasses import replace

    from warmstart.engine import loop, store

    crew.wait()
    decided = store.read_object(setting.folder / DECIDED)
    loop.run(objective.prepare(replace(setting, settings=decided["settings"])), _how(recipe, setting, decided, crew, None))
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
        seconds=decided["seconds"],
        replans=None if recorded is None else replans(recorded),
        crew=crew,
        shards=recipe.parallel == "fsdp",
        progress=progress,
    )


def _train(
    recipe: PretrainRecipe,
    learner: Learner,
    setting: Setting,
    decided: dict[str, Any],
    space: Workspace,
    crew: Crew,
    clock: Clock,
    command: str,
) -> PretrainReport:
    from warmstart.engine import device, loop, pretrained

    outcome = loop.run(learner, _how(recipe, setting, decided, crew, None if setting.quiet else recipe.objective))
    crew.wait()
    learner.module.eval()
    learner.save(space.partial)
    plan = {"settings": learner.settings, "replans": outcome.replans, "corpus": learner.corpus.hash}
    report = pretrained.report(
        recipe, learner, outcome, model=str(space.out), environment=device.environment(setting.device, setting.precision), command=command
    )
    return pretrained.write(space.partial, recipe=recipe, learner=learner, plan=plan, report=report, seconds=clock.elapsed())


def _training_seconds(recipe: PretrainRecipe, clock: Clock) -> float | None:
    """What is left of the budget for training; None without one."""
    return None if recipe.budget is None else max(0.0, clock.remaining() - AFTER_SECONDS - AFTER_SHARE * recipe.budget)


def _planned(recipe: PretrainRecipe, learner: Learner) -> str:
    """The plan in a few lines, before anything long begins."""
    plan = learner.plan
    read = ", ".join(f"{count:,} {noun}" for noun, count in learner.corpus.items.items())
    lines = [
        f"{recipe.objective}: {plan.parameters:,} parameters; {learner.corpus.source}: {read}",
        f"plan: {counted(plan.steps, 'step')}, {plan.count:,} {plan.unit}, "
        f"about {plan.seconds:.0f} s and {plan.memory_bytes / 2**20:,.0f} MiB",
    ]
    left_out = [f"note: {count:,} left out: {reason}" for reason, count in learner.corpus.left_out.items()]
    return "\n".join([*lines, *plan.notes, *(f"note: {note}" for note in learner.corpus.notes), *left_out])
