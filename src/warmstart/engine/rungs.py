"""Which rungs a run climbs: parts from the registry with the recipe's options, in order, and which to give up when time is short."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warmstart.core import registry
from warmstart.core.errors import BadOption
from warmstart.core.protocols import Strategy
from warmstart.core.recipe import Recipe
from warmstart.engine.ladder import Ladder
from warmstart.engine.workbench import Workbench

BASELINES = ("majority", "classic")
"""Climbed for comparison even where they may not be chosen."""


@dataclass(frozen=True)
class Candidate:
    """A rung that could be climbed. ``eligible``: it may be chosen."""

    label: str
    strategy: Strategy
    eligible: bool = True


def wanted(recipe: Recipe) -> list[tuple[Strategy, bool]]:
    """The strategies that the recipe asks for, from cheap to dear, and whether each may be chosen.

    Raises:
        UnknownPart: No such strategy.
        BadOption: An option that none of the strategies has, or that cannot go with ``--compatible transformers``.
    """
    given = dict(recipe.options.get("strategy", {}))
    if recipe.compatible == "transformers" and given.setdefault("head", "native") != "native":
        raise BadOption(f"strategy.head = {given['head']} with --compatible transformers", "head = native", "leave one of the two out")
    known = registry.parts("strategies")
    names = list(known) if recipe.strategy == "auto" else [recipe.strategy]
    if recipe.strategy != "auto":
        registry.module("strategies", recipe.strategy)
    owned = {name: {o.name for o in known[name].options} for name in names}
    if recipe.compatible == "transformers" and recipe.strategy != "auto" and "head" not in owned[recipe.strategy]:
        raise BadOption(
            f"{recipe.strategy} with --compatible transformers",
            "a strategy with a native head: tail, lora, full or soup",
            "choose one of them, or auto",
        )
    for key in given:
        if not any(key in options for options in owned.values()):
            raise BadOption(
                f"no strategy here has an option {key!r}",
                f"known: {', '.join(sorted(set().union(*owned.values())))}",
                "see: warmstart parts strategies",
            )
    found = []
    if recipe.backbone == "none":
        names = [name for name in names if registry.create("strategies", name).serve_cost < 1]
    for name in names:
        options = {key: value for key, value in given.items() if key in owned[name]}
        native = "head" in owned[name]
        eligible = native or recipe.compatible != "transformers"
        if eligible or name in BASELINES:
            found.append((registry.create("strategies", name, options=options), eligible))
    return sorted(found, key=lambda f: f[0].order)


def expand(strategies: Sequence[tuple[Strategy, bool]], bench: Workbench, *, alone: bool) -> list[Candidate]:
    """Strategies as rungs: one that offers variants (tails of several lengths) becomes several, unless it was named alone."""
    rungs: list[Candidate] = []
    for strategy, eligible in strategies:
        variants = [(strategy.name, strategy)] if alone or not hasattr(strategy, "variants") else strategy.variants(bench)
        rungs += [Candidate(label, variant, eligible) for label, variant in variants]
    return rungs


def affordable(ladder: Ladder, rungs: Sequence[Candidate], seconds: float) -> list[Candidate]:
    """Those of the rungs that move the body whose full courses fit into ``seconds`` together, in their order.

    The worthiest (``worth``, lower first) is kept even where it must be shortened: one rung with all the time there is beats
    several starved ones. One that is still whole when it is smaller (``smallest``: fewer courses of a soup) goes before others of less
    worth.
    """
    kept: list[Candidate] = []
    fits: list[float] = []
    for rung in sorted(rungs, key=lambda r: r.strategy.worth):
        further = ladder.fit_seconds(rung.strategy)
        if ladder.altogether([*fits, further]) > seconds and hasattr(rung.strategy, "smallest"):
            further = ladder.fit_seconds(rung.strategy.smallest())
        if not kept or ladder.altogether([*fits, further]) <= seconds:
            kept.append(rung)
            fits.append(further)
    return [rung for rung in rungs if rung in kept]


def share(ladder: Ladder, rungs: Sequence[Candidate], others: Sequence[Candidate]) -> float:
    """Of the predicted seconds of all of these, what the first ones take; all of it where there are no others."""
    own = total(ladder, rungs)
    rest = total(ladder, others)
    return own / (own + rest) if math.isfinite(own) and rest else 1.0


def cut_of(ladder: Ladder, rungs: Sequence[Candidate]) -> int | None:
    """The cut of the worthiest of these rungs that starts from one: kept while the probe runs the whole body anyway."""
    for rung in sorted(rungs, key=lambda r: r.strategy.worth):
        if hasattr(rung.strategy, "point") and ladder.bench.backbone.trunk is not None:
            point: int = rung.strategy.point(ladder.bench)
            return point or None  # nothing has run before block 0
    return None


def needed(ladder: Ladder, strategy: Strategy) -> float:
    """The budget, in seconds, that the shortest course of a rung would have fitted into; infinite where there is none."""
    seconds = max(1.0, ladder.left())
    for _ in range(40):
        if ladder.fits(strategy, seconds):
            return ladder.clock.elapsed() + ladder.after + seconds
        seconds *= 1.25
    return math.inf


def total(ladder: Ladder, rungs: Sequence[Candidate]) -> float:
    """Predicted seconds of climbing these rungs in full."""
    return ladder.altogether([ladder.fit_seconds(rung.strategy) for rung in rungs])
