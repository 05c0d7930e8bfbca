"""predict: label rows with a model, one record a row; or write on, with a causal language model, one record a prompt."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from warmstart.core.card import Card
from warmstart.core.errors import BadOption

RECORDS = "predictions.jsonl"
"""In a folder for answers that are files."""


def run(
    model: Path,
    data: str | Sequence[str],
    *,
    out: Path | None = None,
    column: dict[str, str] | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    precision: str = "auto",
    quiet: bool = True,
) -> Iterator[dict[str, Any]]:
    """Label every row of a file, or every sentence; of many images or recordings only a few are in memory at once.

    Args:
        model: Folder that ``adapt`` wrote.
        data: A file or folder, ``-`` for standard input, or a list of sentences or of image files.
        out: Where to write the records (.csv, .jsonl or .parquet), or a folder for answers that are files (masks), with the records in
            ``predictions.jsonl``; None: nowhere.
        column: Role to column, where it cannot be inferred.
        skip_bad: Leave out rows that cannot be used.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` is what the model was adapted in, or float32 where bfloat16 is slow.
        quiet: No progress.

    Yields:
        One record a row: ``row`` (its number or line in the file, where there is one), ``input`` (the file that an image came from),
        ``label``, its calibrated ``probability``, and ``probabilities`` by class.

    Raises:
        InputError: The folder, a file, a column or a row is wrong.
    """
    from warmstart.engine import answers, draft, tables
    from warmstart.engine import model as models

    files = answers.Files(out) if out is not None and not out.suffix else None
    out = files.folder / RECORDS if files is not None else out
    if out is not None:
        tables.require_writable(out)
    loaded = models.load(model, device=device, precision=precision)
    outline: Any = getattr(loaded.modality, "outline", None)
    outlines: list[Any] = []
    left_out, named, source = Counter[str](), dict[str, list[str]](), ""
    with tables.writing(out) if out is not None else nullcontext() as write:
        for part in loaded.parts(data if isinstance(data, str) else list(data), column=column or {}, skip_bad=skip_bad):
            source = part.source
            left_out.update(part.left_out)
            for reason, names in part.named.items():
                draft.name_few(named, reason, names)
            outlines.extend(map(outline, part.inputs) if outline is not None else ())
            records = loaded.records(part.inputs, quiet=quiet, files=files)
            if part.rows:
                records = [{"row": row, **record} for row, record in zip(part.rows, records, strict=True)]
            files_of = [loaded.modality.where(value) for value in part.inputs]
            records = [{**({"input": name} if name else {}), **record} for name, record in zip(files_of, records, strict=True)]
            if write is not None:
                write([_written(loaded.named(value), record) for value, record in zip(part.inputs, records, strict=True)])
            yield from records
    for note in (*draft.left_out_notes(source, left_out, named), *loaded.modality.notes(outlines)):
        print(f"note: {note}", file=sys.stderr)


def writes(model: Path, sampling: Mapping[str, Any]) -> bool:
    """Whether a folder writes text rather than labels rows.

    Raises:
        NotAModel: Not a folder of warmstart's.
        BadOption: Options of sampling were given for one that labels.
    """
    if Card.read(model).head == "body":
        from warmstart.engine import store

        if store.is_causal(model):
            return True
    if sampling:
        name = next(iter(sampling)).replace("_", "-")
        raise BadOption(f"--{name} for {model}, which writes no text", "a folder from: warmstart pretrain --objective gpt", "leave it out")
    return False


def write(
    model: Path,
    data: str | Sequence[str],
    *,
    sampling: Mapping[str, Any],
    out: Path | None = None,
    column: dict[str, str] | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Go on with prompts.

    Args:
        model: Folder of a causal language model that ``pretrain`` wrote.
        data: A file of prompts (rows of a table, or paragraphs), ``-`` for one prompt from standard input, or a list of prompts.
        sampling: ``temperature``, ``top_k``, ``top_p``, ``max_tokens`` and ``seed``, where they are not the defaults.
        out: Where to write the records (.csv, .jsonl or .parquet); None: nowhere.
        column: ``{"text": name}`` of a table, where it cannot be inferred.
        skip_bad: Leave out rows that cannot be used.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        tell: Gets every prompt, and then the text in pieces as they come.

    Yields:
        One record a prompt: ``prompt``, ``text`` (what was added), ``tokens``, ``stopped`` (``end`` or ``length``) and ``notes``.

    Raises:
        InputError: The folder, a file, an option or a prompt is wrong.
    """
    from dataclasses import asdict

    from warmstart.engine import generation, tables

    if out is not None:
        tables.require_writable(out)
    Card.read(model).verify(model)
    drawn = generation.Sampling(**sampling)
    writer = generation.load(model, device=device)
    records = []
    for prompt in _prompts(data, column, skip_bad) if isinstance(data, str) else data:
        done = generation.Generated(prompt)
        for number, piece in enumerate(writer.stream(prompt, drawn, done)):
            if tell is not None:
                tell(piece if number else prompt + piece)
        if tell is not None:
            tell("\n" if done.text else f"{prompt}\n")
        records.append(asdict(done))
        yield records[-1]
    if out is not None:
        tables.write_records(out, [{**record, "notes": "; ".join(record["notes"])} for record in records])


def _prompts(source: str, column: dict[str, str] | None, skip_bad: bool) -> Iterator[str]:
    if source == "-":
        yield sys.stdin.read().rstrip("\n")
        return
    from warmstart.engine.corpus import Texts

    parts: list[str] = []
    for piece in Texts(source, column=column, skip_bad=skip_bad).pieces():
        parts.append(piece.text)
        if piece.last:
            yield "".join(parts)
            parts = []


def _written(named: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A record as a file has it: its row, what was read, what was predicted."""
    row = {"row": record["row"]} if "row" in record else {}
    return {**row, **named, **{key: value for key, value in record.items() if key != "input"}}
