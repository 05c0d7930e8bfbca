"""The command line: one command per verb. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from warmstart.core import registry
from warmstart.core.errors import BadOption, DiskFull, FolderExists, RunError, UnknownPart, WarmstartError, nearest
from warmstart.core.recipe import PretrainRecipe, Recipe
from warmstart.flags import columns as columns_of
from warmstart.flags import common, recipe_flags, run_flags
from warmstart.flags import recipe as recipe_of
from warmstart.terminal import print_json, print_piece, print_predictions, print_report, print_table, print_texts

DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".ipc", ".txt", ".gz")


NEXT = {"tokens": ('"a sentence"', "MORE.csv"), "pixels": ("IMAGE.png", "MORE/"), "ms": ("SOUND.wav", "MORE/")}
"""What a model may be asked next, by the unit of its inputs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one line on stderr, or with ``--json`` one object on stdout."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    flags = set(itertools.takewhile(lambda a: a != "--", args))
    # Threads that spin while they wait for each other are six times slower beside one other busy process; read when OpenMP starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with app.make_context("warmstart", list(args), obj=args) as context:
            app.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:  # the reader, such as head, has seen enough; what is left in the buffer must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        _complain(RunError("interrupted", do="the same command resumes where this one stopped"), "--json" in flags)
        return 130
    except Exception as error:
        if "--debug" in flags:
            traceback.print_exc()
        known = _known(error)
        _complain(known, "--json" in flags)
        return known.exit_code


def _known(error: Exception) -> WarmstartError:
    """Any exception as one of ours."""
    if isinstance(error, WarmstartError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "warmstart"
        return BadOption(error.format_message(), do=f"see: {path} --help")
    text = " ".join(str(error).split())
    full = (errno.ENOSPC, errno.EDQUOT)  # the tokenizers library reports them without a number
    if (isinstance(error, OSError) and error.errno in full) or any(os.strerror(code) in text for code in full):
        return DiskFull(f"no space left on the disk: {text}", do="free some space and run the same command again")
    # PyTorch reports a lack of memory with classes of its own, which cannot be imported here.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in text:
        return RunError("not enough memory", do="close other programs, or use a smaller --max-length or a smaller backbone")
    return RunError(f"unexpected {type(error).__name__}: {text}", do="run again with --debug to see where")


def _complain(error: WarmstartError, as_json: bool) -> None:
    click.echo(f"warmstart: {error.kind}: {error}", err=True)
    if as_json:
        print_json({"error": error.as_dict()})


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="warmstart", message="%(prog)s %(version)s")
def app() -> None:
    """Start from a pre-trained model, adapt it to your data in minutes, and know whether it helped."""


@app.command("adapt")
@click.argument("data", required=False)
@run_flags(of=Recipe, out="Model folder to write.", example="strategy.head=native")
def _adapt(
    *, data: str | None, out: Path, file: Path | None, sets: tuple[str, ...], force: bool, quiet: bool, as_json: bool, **flags: Any
) -> None:
    """Fit a model to labelled rows in a time budget.

    DATA is a table with a label column and one of texts, images or recordings, or a folder with a folder of files for each class. What
    every rung of the ladder gained is measured and written into FOLDER.
    """
    recipe = recipe_of(
        Recipe(), data=data, file=file, sets=sets, flags=flags, expected="a table, as the first argument or as data in the recipe"
    )
    from warmstart.stages import adapt

    report = adapt.run(recipe, out=out, force=force, quiet=quiet, command=_command())
    print_report(report, out, as_json)
    if not as_json:
        folder = shlex.quote(str(out))
        example, more = NEXT.get(report.data.unit, NEXT["tokens"])
        click.echo(f"Next: warmstart predict {folder} {example}\n      warmstart evaluate {folder} {more}")


@app.command("pretrain")
@click.argument("data", required=False)
@run_flags(of=PretrainRecipe, out="Folder to write the body to.", example="objective.steps=300")
def _pretrain(
    *, data: str | None, out: Path, file: Path | None, sets: tuple[str, ...], force: bool, quiet: bool, as_json: bool, **flags: Any
) -> None:
    """Train a body on data, with or without labels.

    DATA is text, a table, or a folder, as the objective asks for. FOLDER is then what adapt --backbone starts from.
    """
    recipe = recipe_of(
        PretrainRecipe(), data=data, file=file, sets=sets, flags=flags, expected="text, a table or a folder, as the first argument"
    )
    from warmstart.stages import pretrain

    report = pretrain.run(recipe, out=out, force=force, quiet=quiet, command=_command())
    if report is not None:
        print_report(report, out, as_json)
        if not as_json:
            click.echo(f"Next: warmstart adapt DATA --backbone {shlex.quote(str(out))} --out MODEL")


@app.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write .csv, .jsonl or .parquet, or a folder of masks.",
)
@recipe_flags("column", "skip_bad", "precision", "device")
@click.option("--temperature", type=float, help="Writing: divides the logits; 0 takes the likeliest token. [default: 0.8]")
@click.option("--top-k", type=int, help="Writing: draw among the likeliest K tokens.")
@click.option("--top-p", type=float, help="Writing: draw among the fewest tokens that together have this probability.")
@click.option("--max-tokens", type=int, help="Writing: tokens at most. [default: 200]")
@click.option("--seed", type=int, help="Writing: equal seeds give equal texts. [default: 0]")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--quiet", is_flag=True, help="No progress.")
@common
def _predict(
    *,
    model: Path,
    data: tuple[str, ...],
    out: Path | None,
    column: tuple[str, ...],
    skip_bad: bool,
    precision: str | None,
    device: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Label a file, sentences, images or recordings with a model; or write on from prompts.

    MODEL is a folder that adapt wrote; DATA is a file or folder, - for standard input, or one or more sentences or image files. With a
    folder from pretrain that holds a causal language model, DATA are prompts, and the text appears as it is written.
    """
    columns = columns_of(column)
    if out is not None:
        _must_be_free(out, force)
    sentences = None if len(data) == 1 and _is_file(data[0]) else list(data)
    from warmstart.stages import predict

    given = {name: value for name, value in sampling.items() if value is not None}
    if predict.writes(model, given):
        tell = None if as_json or quiet or out is not None else print_piece
        where: dict[str, Any] = {"out": out, "column": columns, "skip_bad": skip_bad, "device": device or "auto"}
        print_texts(predict.write(model, sentences or data[0], sampling=given, tell=tell, **where), out, as_json, told=tell is not None)
        return
    found = predict.run(
        model,
        sentences or data[0],
        out=out,
        column=columns,
        skip_bad=skip_bad,
        device=device or "auto",
        precision=precision or "auto",
        quiet=quiet,
    )
    if out is not None:
        count = sum(1 for _ in found)
        print_json({"out": str(out), "rows": count}) if as_json else click.echo(f"{count:,} predictions: {out}")
    elif as_json:
        for record in found:
            print_json(record)
    else:
        print_predictions(found, sentences)


@app.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write report.json and report.html there.")
@recipe_flags("column", "skip_bad", "precision", "device", "seed")
@click.option("--force", is_flag=True, help="Overwrite the report in FOLDER.")
@click.option("--quiet", is_flag=True, help="No progress.")
@common
def _evaluate(
    *,
    model: Path,
    data: str,
    out: Path | None,
    column: tuple[str, ...],
    skip_bad: bool,
    precision: str | None,
    device: str | None,
    seed: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure a model on labelled rows.

    MODEL is a folder that adapt wrote; DATA is a table. Every score has an interval.
    """
    columns = columns_of(column)
    if out is not None:
        _must_be_free(out / "report.json", force)
    from warmstart.stages import evaluate

    report = evaluate.run(
        model,
        data,
        out=out,
        column=columns,
        skip_bad=skip_bad,
        device=device or "auto",
        precision=precision or "auto",
        seed=seed or 0,
        quiet=quiet,
        command=_command(),
    )
    print_report(report, out, as_json)


@app.group("models", invoke_without_command=True)
@common
@click.pass_context
def _models(context: click.Context, *, as_json: bool) -> None:
    """List the pre-trained bodies that can be used here; import others."""
    if context.invoked_subcommand is not None:
        return
    from warmstart.stages import models

    found = models.run()
    if as_json:
        print_json([dataclasses.asdict(row) for row in found])
        return
    print_table([models.HEADER, *(row.cells() for row in found)])


@_models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "architecture", required=True, metavar="ARCHITECTURE", help="What the tensors are: mobilenet_v2, resnet50, ...")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Folder to write.")
@click.option("--classes", type=click.Path(path_type=Path), metavar="FILE", help="Names of its classes in order: one a line, CSV or JSON.")
@click.option("--licence", default="unknown", help="Licence of the weights, such as apache-2.0.")
@click.option("--origin", default="", help="Where the weights come from, for the model card.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="An option of the importer, e.g. importer.padding=same.")
@click.option("--force", is_flag=True, help="Overwrite FOLDER.")
@common
def _import(*, file: Path, sets: tuple[str, ...], as_json: bool, out: Path, **given: Any) -> None:
    """Convert a plain state dict (safetensors) to a folder.

    The folder is then a backbone, and a model too where the state dict has a classifier. What it gives is compared with what the state
    dict gives before it is written.
    """
    from warmstart.stages import imports

    found = imports.run(file, out=out, options=imports.options(sets), **given)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    folder = shlex.quote(str(out))
    click.echo(f"{found.architecture}: {found.parameters:,} parameters, {found.classes:,} classes, licence {found.licence}: {out}")
    click.echo(f"It gives what the state dict gives, up to {found.error:.1g} of the largest number.")
    click.echo(f"Next: warmstart adapt DATA --backbone {folder} --out MODEL")
    if found.classes:
        click.echo(f"      warmstart evaluate {folder} DATA")


@app.command("parts")
@click.argument("family", required=False)
@click.argument("name", required=False)
@common
def _parts(*, family: str | None, name: str | None, as_json: bool) -> None:
    """List the plug-ins and their options.

    Of all families, of one FAMILY, or the options of one NAME.
    """
    found = [part for f in ([family] if family else registry.families()) for part in registry.parts(f).values()]
    if name:
        known = [part.name for part in found]
        found = [part for part in found if part.name == name]
        if not found:
            given = f"{family} has no part named {name!r}.{nearest(name, known)}"
            raise UnknownPart(given, f"known: {', '.join(known)}", f"see: warmstart parts {family}")
    if as_json:
        print_json([dataclasses.asdict(part) for part in found])
    elif name:
        click.echo(f"{name}: {found[0].help}")
        print_table([("", option.name, option.type, f"default {option.default}", option.help) for option in found[0].options])
    else:
        print_table([(part.family, part.name, part.help) for part in found])


@app.command("cache")
@click.argument("action", type=click.Choice(["show", "clear", "limit"]), default="show")
@click.argument("size", required=False)
@common
def _cache(*, action: str, size: str | None, as_json: bool) -> None:
    """Show, clear or limit the stored activations.

    SIZE goes with limit: such as 20GB.
    """
    if (action == "limit") != (size is not None):
        raise BadOption(f"warmstart cache {action} {size or ''}".strip(), "a SIZE with limit, and only there", "write for example 20GB")
    from warmstart.stages import cache

    state = cache.run(action, size)
    print_json(state) if as_json else click.echo(cache.as_text(state))


@app.command("doctor")
@common
def _doctor(*, as_json: bool) -> None:
    """Say what works here and what is missing."""
    from warmstart.stages import doctor

    found = doctor.run()
    print_json(found) if as_json else click.echo(doctor.as_text(found))


def _command() -> str:
    """The command as it was typed, for the report."""
    return shlex.join(["warmstart", *click.get_current_context().obj])


def _is_file(text: str) -> bool:
    """Whether one argument means a file: it is there, it is standard input, or it ends as data files do. An empty one is a sentence."""
    if not text:
        return False  # as a path it would be the current folder
    if text == "-" or text.lower().endswith(DATA_SUFFIXES):
        return True
    try:
        return Path(text).exists()  # of a folder the reader says that it is one
    except (OSError, ValueError):  # a sentence longer than a file name may be
        return False


def _must_be_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise FolderExists(f"{path} is there already", "a new name", "choose another --out, or overwrite it with --force")
