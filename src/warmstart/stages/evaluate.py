"""evaluate: measure a model on labelled rows, every score with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import DataError
from warmstart.core.report import DataSummary, Report


def run(
    model: Path,
    data: Any,
    *,
    out: Path | None = None,
    column: dict[str, str] | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    quiet: bool = True,
    command: str = "",
) -> Report:
    """Measure a model on labelled rows.

    Args:
        model: Folder that ``adapt`` wrote.
        data: A labelled table.
        out: Folder for ``report.json`` and ``report.html``; None: nowhere.
        column: Role to column, where it cannot be inferred.
        skip_bad: Leave out rows that cannot be used.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` is what the model was adapted in, or float32 where bfloat16 is slow.
        seed: Of the resampling behind the intervals.
        quiet: No progress.
        command: The command as typed, for the report.

    Raises:
        InputError: The folder, a file, a column or a row is wrong.
    """
    from collections import Counter

    from warmstart.engine import answers, draft, outcome, page, store
    from warmstart.engine import device as devices
    from warmstart.engine import model as models
    from warmstart.engine.clock import Clock

    clock = Clock(None)
    loaded = models.load(model, device=device, precision=precision)
    rows = loaded.examples(data, column=column or {}, skip_bad=skip_bad, labelled=True)
    task: Any = loaded.task
    targets = task.encode(rows.targets or [], loaded.labels)
    unknown = task.unknown(rows.targets or [], loaded.labels)
    structured = answers.is_structured(task)
    if sum(unknown.values()) == len(rows.inputs) and targets.ndim == 1 and not structured:
        shown = ", ".join(repr(label) for label in list(unknown)[:3])
        raise DataError(
            f"no label of {rows.source} is known to the model (such as {shown})",
            f"labels among {', '.join(map(repr, loaded.labels[:5]))}",
            "name the right column with --column label=...",
        )
    found = outcome.on_test(loaded, rows.inputs, targets, rows.targets or [], rows.rows, name=f"rows of {rows.source}", quiet=quiet)
    warnings = draft.left_out_notes(rows.source, rows.left_out, rows.named)
    what = getattr(task, "unknown_name", "rows carry the label")
    warnings += [f"{count} {what} {label!r}, which the model does not know" for label, count in unknown.items()]
    where = devices.resolve(device)
    report = Report(
        verb="evaluate",
        model=str(model),
        task=loaded.task.name,
        backbone=loaded.card.backbone.name,
        strategy=loaded.card.strategy,
        main_metric=loaded.task.main_metric,
        measured_on=found.name,
        metrics=outcome.measure(found, loaded, seed),
        data=DataSummary(
            source=rows.source,
            columns=rows.columns,
            rows_train=0,
            rows_test=len(rows.inputs),
            labels=task.counts(list(targets), loaded.labels) if structured else dict(Counter(found.truths).most_common()),
            split="all rows measured",
            left_out=rows.left_out,
            unit=loaded.modality.unit,
        ),
        **outcome.drawings(found, loaded),
        errors=outcome.errors(found, loaded, None),
        environment=devices.environment(where, getattr(loaded.predictor, "precision", devices.dtype(precision, where))),
        command=command,
        seed=seed,
        warnings=warnings,
        seconds=clock.elapsed(),
        peak_bytes=devices.peak_bytes(),
    )
    if out is not None:
        store.write_json(out / "report.json", report.as_dict())
        page.write(report, out / "report.html")
    return report
