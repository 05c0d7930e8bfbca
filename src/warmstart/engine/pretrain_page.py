"""The report of a pre-training run as one self-contained HTML page, in the style of the other reports."""

from __future__ import annotations

import shlex
from pathlib import Path

from markupsafe import Markup

from warmstart.core.report import PretrainReport
from warmstart.engine import page, plots, store
from warmstart.engine.plots import clip

PICTURES_BYTES = 1_400_000
"""Of data URIs; the page stays under 2 MB."""

MEANINGS = {
    "loss": "What training makes smaller.",
    "perplexity": "exp of the loss: among how many tokens the model still hesitates.",
    "per_second": "Speed of training.",
    "lr": "Learning rate.",
    "probe_accuracy": "Accuracy of a linear probe on the body's states: what the body is worth for telling classes apart.",
}


def render(report: PretrainReport) -> str:
    """The whole page as one HTML document."""
    kept, used = [], 0
    for title, uri in report.pictures:
        used += len(uri)
        if used <= PICTURES_BYTES:
            kept.append((title, Markup(uri)))  # noqa: S704 - base64, made by us
    command = f"warmstart adapt DATA --backbone {shlex.quote(report.model)} --out MODEL"
    if report.objective == "gpt":
        command = f'warmstart predict {shlex.quote(report.model)} "Once upon a time"\n{command}'
    title = f"{clip(report.objective, 40)} on {clip(report.source, 80)}"
    values = {"r": report, "title": title, "figures": _figures(report), "pictures": kept, "next_command": command}
    return page.filled("pretrain.html", values)


def write(report: PretrainReport, path: Path) -> None:
    """Write the page to ``path``, atomically.

    Raises:
        DiskFull: No space left.
    """
    store.write_text(path, render(report))


def _figures(report: PretrainReport) -> list[tuple[str, Markup, str]]:
    """One drawing a measure, the loss first: name, SVG, meaning. Training and validation of one measure share a drawing."""
    names = list(dict.fromkeys(name.removeprefix("validation/") for name in report.curves))
    ranked = sorted(names, key=lambda name: (name != "loss", name in ("lr", "per_second")))
    found = []
    for name in ranked:
        lines = [
            (label, *report.curves[key])
            for label, key in (("training", name), ("validation", f"validation/{name}"))
            if key in report.curves
        ]
        label = f"{report.unit} per second" if name == "per_second" else name.replace("_", " ")
        if svg := plots.curves(lines, clip(label, 40), phases=report.phases):
            found.append((label, Markup(svg), MEANINGS.get(name, "")))  # noqa: S704 - made by plots, which escapes
    return found
