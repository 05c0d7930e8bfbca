"""The report as one self-contained HTML page: no network, no script, light and dark, phone and desktop, always under 2 MB."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from warmstart.core.report import ErrorCase, Report, Rung
from warmstart.engine import confusions, gallery, panels, plots, store
from warmstart.engine.plots import clip

Item = TypeVar("Item")

MEANINGS = {
    "accuracy": ("accuracy", "Share of examples whose label is right. Higher is better."),
    "balanced_accuracy": (
        "balanced accuracy",
        "Accuracy of each class, averaged: rare classes count as much as frequent ones. Higher is better.",
    ),
    "exact_match": ("exact match", "Share of examples whose whole set of labels is right. Higher is better."),
    "example_f1": ("F1 per example", "Balance of precision and recall of each example's labels, averaged. Higher is better."),
    "macro_f1": ("macro F1", "Balance of precision and recall, averaged over classes: rare ones count as much. Higher is better."),
    "micro_f1": ("micro F1", "Balance of precision and recall over all decisions together. Higher is better."),
    "log_loss": ("log loss", "Surprise at the true label, in nats: punishes being sure and wrong. Lower is better."),
    "brier": ("Brier score", "Squared distance between the probabilities and the truth. Lower is better."),
    "ece": ("calibration error", "Expected gap (ECE) between how sure the model is and how often it is right. Lower is better."),
    "label_accuracy": ("label accuracy", "Share of single yes-or-no decisions that are right. Higher is better."),
    "hamming_loss": ("Hamming loss", "Share of single yes-or-no decisions that are wrong. Lower is better."),
    "average_precision": ("average precision", "Quality of the ranking by probability, averaged over classes. Higher is better."),
    "image_ap": ("AP within an image", "How well the objects in one image are found and ranked, averaged over images. Higher is better."),
    "image_iou": ("IoU within an image", "How well the classes of one image are covered, averaged over images. Higher is better."),
    "miou": ("mean IoU", "Overlap of what is said with the truth over all images, averaged over classes. Higher is better."),
    "pixel_accuracy": ("pixel accuracy", "Share of the pixels whose class is right. Higher is better."),
    "map": ("mAP", "Average precision over classes and overlaps from .5 to .95, as COCO has it. Higher is better."),
    "ap50": ("AP50", "Average precision where half an overlap is enough. Higher is better."),
    "ap75": ("AP75", "Average precision where three quarters of an overlap are asked for. Higher is better."),
    "word_accuracy": ("word accuracy", "One less each recording's word error rate, at least 0, averaged. Higher is better."),
    "wer": ("word error rate", "Words left out, put in or taken for others, for each word that was said. Lower is better."),
    "cer": ("character error rate", "The same of characters. Lower is better."),
    "exact": ("without any error", "Share of recordings whose whole text is right. Higher is better."),
    "real_time_factor": ("real-time factor", "Seconds of computing for a second of sound, on this machine. Lower is better."),
    "f1": ("F1", "Balance of precision and recall. Higher is better."),
    "ap": ("AP", "Average precision. Higher is better."),
    "iou": ("IoU", "Overlap with the truth. Higher is better."),
    "roc_auc": ("ROC AUC", "Chance that a right answer is ranked above a wrong one. Higher is better."),
}
"""What each metric is called, and what it means, in one line."""

MOST = 1_900_000
"""Bytes of a page, but for the tags around pictures and sounds."""

BY_CLASS = "/"
"""In the name of a metric of one class (``ap/cat``), which is drawn and not listed."""

_EXAMPLES = {"tokens": ("new.csv", "a new text"), "pixels": ("image.png", "image.png"), "ms": ("sound.wav", "sound.wav")}

PERCENT = "\u00a0%"

_ALIASES = {
    "expected_calibration_error": "ece",
    "brier_score": "brier",
    "f1_macro": "macro_f1",
    "f1_micro": "micro_f1",
    "subset_accuracy": "exact_match",
}
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_UNBOUNDED = ("loss", "brier", "perplexity", "entropy", "factor")
_LIMITS = {
    "verdict": 12,
    "ladder": 40,
    "comparisons": 20,
    "learning_curve": 200,
    "errors": 25,
    "neighbours": 5,
    "labels": 20,
    "pairs": 15,
    "classes": 30,
}


def render(report: Report) -> str:
    """The whole page as one HTML document; sections without data are left out.

    Pictures and sounds get the room that everything else leaves.
    """
    cases = [replace(case, neighbours=case.neighbours[: _LIMITS["neighbours"]]) for case in report.errors[: _LIMITS["errors"]]]
    values = _values(report)
    if not cases:
        return filled("report.html", values | _shown([]))
    without = filled("report.html", values | _shown(gallery.afforded(cases, 0)))
    return filled("report.html", values | _shown(gallery.afforded(cases, MOST - len(without.encode()))))


def _shown(cases: list[ErrorCase]) -> dict[str, Any]:
    """The errors, and what there is of them to look at and to hear."""
    kinds = {"structured": any(c.figure for c in cases), "seen": any(c.picture for c in cases), "heard": any(c.sound for c in cases)}
    return {"errors": cases, **kinds}


def _values(report: Report) -> dict[str, Any]:
    """What the page shows, but for the errors."""
    counts = confusions.table(report.confusion_labels, report.confusion)
    return {
        "r": report,
        "title": _title(report),
        "metrics": _metrics(report),
        "main_name": clip(described(report.main_metric)[0], 30),
        "figures": _figures(report, counts),
        "chosen": next((rung for rung in report.ladder if rung.chosen), None),
        "spent": _spent(report),
        "shared": next((rung.expected.n for rung in report.ladder if rung.expected is not None), 0),
        "pairs": confusions.pairs(report.confusion_labels, counts, _LIMITS["pairs"]),
        "confused": confusions.sentence(report.confusion_labels, counts, whole=bool(report.classes)),
        "drawn_classes": len(confusions.part(counts)),
        "broad_matrix": len(report.confusion_labels) > confusions.NUMBERED,
        "class_rows": class_rows(report),
        "class_metric": described(_class_metric(report))[0],
        "panels": panels.of(report),
        "calibration": _calibration(report),
        "label_bars": _label_bars(report.data.labels),
        "length_name": _length_name(report),
        "predict_command": f"warmstart predict {shlex.quote(report.model)} {_EXAMPLES.get(report.data.unit, _EXAMPLES['tokens'])[0]}",
        "example": _EXAMPLES.get(report.data.unit, _EXAMPLES["tokens"])[1],
        "model_literal": repr(report.model),
        "limits": _LIMITS,
    }


def filled(template: str, values: Mapping[str, Any]) -> str:
    """One of our templates filled in, without characters that a page cannot show."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (clip, breakable, gallery.picture, gallery.player, drawn, score, interval, points, share, duration, compact, size, head)
    environment.filters.update({function.__name__: function for function in filters})
    return _UNSHOWABLE.sub("", environment.get_template(template).render(values)).strip() + "\n"


def write(report: Report, path: Path) -> None:
    """Write the page to ``path``, atomically.

    Raises:
        DiskFull: No space left.
    """
    text = render(report)
    with store.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def described(metric: str) -> tuple[str, str]:
    """A metric's name for people and one plain line on what it says (empty for a metric that we do not know)."""
    return MEANINGS.get(_ALIASES.get(metric, metric), (metric.replace("_", " "), ""))


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1 and reads well in per cent."""
    return not any(word in metric for word in _UNBOUNDED) or metric == "hamming_loss"


def score(value: float | None, metric: str) -> str:
    """``91.2 %`` for shares, ``0.286`` for losses, a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f}{PERCENT}" if is_share(metric) else f"{value:.3f}"


def interval(measured: Any, metric: str) -> str:
    """``91.4–93.8 %``, from anything with ``low`` and ``high``; ``-1.8 to -1.2`` where a dash would look like one more minus."""
    low, high = score(measured.low, metric), score(measured.high, metric)
    between = " to " if low.startswith("-") else "–"
    return f"{low.removesuffix(PERCENT)}{between}{high}" if high.endswith(PERCENT) or low != high else low


def points(difference: float) -> str:
    """A difference of two shares in points, with its sign: ``+5.3``."""
    if not math.isfinite(difference):
        return "–"
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in per cent."""
    return f"{100 * part / whole:.1f}{PERCENT}" if whole else "–"


def duration(seconds: float | None) -> str:
    """``0.42 s``, ``8.3 s``, ``95 s``, ``12 min 30 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 99.5:
        return f"{seconds:.0f}\u00a0s" if seconds >= 9.95 else f"{seconds:.1f}\u00a0s" if seconds >= 0.95 else f"{seconds:.2g}\u00a0s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60}\u00a0min" + (f" {whole % 60:02d}\u00a0s" if whole % 60 else "")
    return f"{whole // 3600}\u00a0h {whole % 3600 // 60:02d}\u00a0min"


def compact(number: int) -> str:
    """``12,345`` in full, ``22.7 M`` from a hundred thousand on."""
    for limit, divisor, unit in ((1e5, 1, ""), (1e6, 1e3, "\u00a0k"), (1e9, 1e6, "\u00a0M"), (1e15, 1e9, "\u00a0G")):
        if abs(number) < limit:
            return f"{number:,}" if divisor == 1 else f"{number / divisor:.3g}{unit}"
    return f"{number:.3g}"


def size(n_bytes: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{n_bytes / 2**20:,.0f}\u00a0MiB" if n_bytes < 2**30 else f"{n_bytes / 2**30:,.1f}\u00a0GiB"


def head(items: Sequence[Item], limit: int) -> list[Item]:
    """The first ``limit`` items: lists come from the user's data, and the page stays small."""
    return list(items)[:limit]


def breakable(text: object, limit: int) -> Markup:
    """A clipped label, escaped, that may break after an underscore, a slash, a point or a hyphen."""
    return Markup(re.sub(r"([_/.-])", r"\1<wbr>", str(escape(clip(text, limit)))))  # noqa: S704 - escaped just here


def _title(report: Report) -> str:
    source = report.data.source
    short = re.split(r"[\\/]", source.rstrip("\\/"))[-1] or source
    if report.verb == "adapt":
        return f"{clip(report.backbone, 60)} adapted to {clip(short, 80)}"
    return f"{clip(PurePath(report.model).name or report.model, 80)} evaluated on {clip(short, 80)}"


def _metrics(report: Report) -> list[dict[str, Any]]:
    """The metrics, the main one first, with their names and meanings."""
    drawn = [key for key in report.metrics if BY_CLASS in key]
    shown = {key: metric for key, metric in report.metrics.items() if key not in drawn}
    ranked = sorted(shown.items(), key=lambda item: item[0] != report.main_metric)
    return [{"key": key, "metric": metric, "name": described(key)[0], "meaning": described(key)[1]} for key, metric in ranked]


def _figures(report: Report, counts: confusions.Counts) -> dict[str, Markup]:
    """The SVG of every drawing; an empty one where there is nothing to draw. Texts inside them are escaped by matplotlib."""
    name, in_percent = clip(described(report.main_metric)[0], 30), is_share(report.main_metric)
    drawn = {
        "ladder": plots.ladder([_comparable(r) for r in report.ladder[: _LIMITS["ladder"]]], name, is_share=in_percent),
        "forest": plots.forest(report.comparisons[: _LIMITS["comparisons"]]),
        "curve": plots.learning_curve(report.learning_curve[: _LIMITS["learning_curve"]], name, is_share=in_percent),
        "confusion": confusions.matrix(report.confusion_labels, counts),
        "reliability": plots.reliability(report.reliability),
        "lengths": plots.lengths(report.data.lengths, _length_name(report)),
    }
    return {key: Markup(svg) for key, svg in drawn.items()}  # noqa: S704 - made by plots, which escapes


def _comparable(rung: Rung) -> Rung:
    """With its score to be expected on the same rows, where the rungs were not measured on the same."""
    found = rung.expected
    return rung if found is None else replace(rung, score=found.value, low=found.low, high=found.high)


def class_rows(report: Report) -> list[dict[str, Any]]:
    """What is known of each class, the lowest value first: its label, value with interval, and of a classification precision, recall
    and number of rows."""
    if report.classes:
        found = [{"label": c.label, "metric": c.f1, "precision": c.precision, "recall": c.recall, "rows": c.rows} for c in report.classes]
    else:
        measured = ((key.partition(BY_CLASS)[2], metric) for key, metric in report.metrics.items() if BY_CLASS in key)
        found = [{"label": label, "metric": metric, "precision": None, "recall": None, "rows": metric.n} for label, metric in measured]
    return sorted(found, key=lambda row: (row["metric"].value, -row["rows"]))


def _class_metric(report: Report) -> str:
    """Which metric ``class_rows`` has."""
    return "f1" if report.classes else next((key.partition(BY_CLASS)[0] for key in report.metrics if BY_CLASS in key), "")


def _length_name(report: Report) -> str:
    """What the length of an example is called: of an image it is the longer side."""
    return "longer side in pixels" if report.data.unit == "pixels" else f"{report.data.unit} per example"


def drawn(figure: str) -> Markup:
    """What a task drew of an example, which has escaped its texts."""
    return Markup(figure)  # noqa: S704 - see ErrorCase


def _spent(report: Report) -> dict[str, float]:
    """Seconds of the climbed rungs, of the whole run and of the budget, and the shares of the bar that shows them (per cent)."""
    rungs = sum(rung.seconds or 0.0 for rung in report.ladder)
    whole = max(report.budget_seconds or 0.0, report.seconds, rungs, 1e-9)
    return {"rungs": rungs, "rungs_percent": 100 * rungs / whole, "rest_percent": 100 * max(report.seconds - rungs, 0.0) / whole}


def _calibration(report: Report) -> dict[str, Any]:
    """The expected calibration error, when measured, and the fullest bin of the reliability diagram."""
    error = next(((name, m) for name, m in report.metrics.items() if _ALIASES.get(name, name) == "ece"), None)
    return {"error": error, "fullest": max((b for b in report.reliability if b.n), key=lambda b: b.n, default=None)}


def _label_bars(labels: dict[str, int]) -> list[dict[str, Any]]:
    """The most frequent labels with their counts and the width of their bar in per cent, and the others together."""
    ranked = sorted(labels.items(), key=lambda item: -item[1])
    shown, others = ranked[: _LIMITS["labels"]], ranked[_LIMITS["labels"] :]
    largest = max((count for _, count in shown), default=1) or 1
    bars = [{"label": label, "count": count, "percent": 100 * count / largest, "others": 0} for label, count in shown]
    if others:
        mean = sum(count for _, count in others) / len(others)
        bars.append({"label": "", "count": sum(c for _, c in others), "percent": 100 * mean / largest, "others": len(others)})
    return bars
