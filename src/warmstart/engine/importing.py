"""A plain state dict becomes a folder: names and shapes are matched, and what the body gives is compared with what the state dict gives.

Shapes: B examples, C classes, D features.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warmstart.core import card as cards
from warmstart.core import registry
from warmstart.core.card import Body, Card, Source
from warmstart.core.errors import (
    BackboneNotFound,
    DataError,
    FileNotFound,
    FileUnreadable,
    FolderExists,
    RunError,
    UnknownPart,
    WarmstartError,
    nearest,
)
from warmstart.core.protocols import Importer
from warmstart.core.words import shortened
from warmstart.engine import bodies, network, predictor, seeds, store
from warmstart.engine.model import SETTINGS
from warmstart.engine.network import Network

TOLERANCE = 1e-4
"""Largest difference between what the folder and the state dict give, relative to the largest number."""

UNUSED = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
OTHERS = {
    ".onnx": "use it as it is: warmstart adapt DATA --backbone FILE.onnx",
    ".keras": "use it as it is: warmstart adapt DATA --backbone FILE.keras",
    ".h5": "save it from Keras 3 as .keras, which can be a backbone as it is",
    ".tflite": "turn it into ONNX in its own environment, which can be a backbone as it is",
    ".npz": "save its arrays with safetensors.numpy.save_file",
}
CLASS_COLUMNS = ("display_name", "label", "name", "class")
MOST_NAMED = 3


@dataclass(frozen=True)
class Imported:
    """What was written: ``error`` is the largest relative difference to the state dict; ``classes`` is 0 for a body without a head."""

    model: str
    architecture: str
    modality: str
    parameters: int
    classes: int
    licence: str
    error: float


def architectures() -> dict[str, str]:
    """What ``--as`` may name, and the importer that knows it."""
    known = registry.parts("importers")
    return {found: part for part in known for found in registry.module("importers", part).Part.architectures}


def run(
    file: Path,
    *,
    architecture: str,
    out: Path,
    classes: Path | None = None,
    licence: str = "unknown",
    origin: str = "",
    options: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Imported:
    """Convert a state dict in safetensors, check the result, and write the folder.

    Args:
        file: The state dict, in any floating-point type.
        architecture: One of ``architectures()``.
        out: Folder to write.
        classes: Names of the classes in order: a text file with one a line, a CSV, or JSON.
        licence: Of the weights, in Hugging Face's spelling.
        origin: Where the weights come from, in words.
        options: Of the importer.
        force: Overwrite ``out``.

    Raises:
        InputError: The file, its tensors, the classes or an option are wrong.
        RunError: The converted body does not give what the state dict gives.
    """
    if out.exists() and not (force and (out / cards.FILE).is_file()):
        raise FolderExists(
            f"{out} exists already", "a new folder", "choose another --out, or overwrite a body that was imported with --force"
        )
    part = _importer(architecture, options or {})
    tensors = read(file)
    _match(tensors, part, architecture, file)
    made, n_classes = _convert(tensors, part, architecture, file)
    names = _class_names(classes, n_classes)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _save(made, part, partial, names)
        error = _prove(partial, tensors, part, architecture)
        parameters = sum(value.numel() for name, value in tensors.items() if not name.endswith(STATISTICS))
        found = Imported(str(out), architecture, part.modality, parameters, n_classes, licence, error)
        _describe(partial, found, file, names, task=part.task, origin=origin)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict without what training alone needs, and without the prefix that ``DataParallel`` leaves.

    Raises:
        InputError: There is no such file, it is a pickle, or of another kind.
    """
    if not file.exists():
        raise FileNotFound(f"no file {file}", "a state dict in safetensors", "correct the path")
    suffix = file.suffix.lower()
    if file.is_dir():
        raise FileUnreadable(f"{file} is a folder", "one file with a plain state dict", "a folder in Hugging Face format needs no import")
    if suffix in PICKLES:
        target = file.with_suffix(".safetensors").name
        code = f"d = torch.load('{file.name}', map_location='cpu', weights_only=True); save_file(d.get('state_dict', d), '{target}')"
        do = f"if you trust its origin, in your own environment: import torch; from safetensors.torch import save_file; {code}"
        raise FileUnreadable(f"{file} is a pickle, which can carry code and is never opened here", "a .safetensors file", do)
    if suffix in OTHERS:
        raise FileUnreadable(f"{file} is no state dict", "a .safetensors file", OTHERS[suffix])
    try:
        found = store.read_tensors(file)
    except WarmstartError as error:
        raise FileUnreadable(error.given, "a whole safetensors file", "copy it again, or name the right one") from None
    found = {name: value for name, value in found.items() if not name.endswith(UNUSED)}
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    wrong = next((name for name, value in found.items() if not value.is_floating_point()), None)
    if wrong is not None or not found:
        what = "no tensors" if wrong is None else f"{wrong} in {str(found[wrong].dtype).removeprefix('torch.')}"
        given = f"{file} holds {what}"
        raise FileUnreadable(given, "floating-point tensors", "give the weights in float32 or float16")
    return {name: value.float() for name, value in found.items()}


def random_state(part: Importer, architecture: str, *, classes: int) -> dict[str, Tensor]:
    """A small random state dict as ``read`` gives one, with norms that have something to do; for tests."""
    with seeds.seeded(0):
        made = part.build(architecture, part.small, classes=classes).state_dict()
        found = {old: made[new].clone() for old, new in part.names(architecture).items()}
        for name, value in found.items():
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1:
                value.uniform_(-0.3, 0.3)
    return found


def _importer(architecture: str, options: Mapping[str, Any]) -> Importer:
    known = architectures()
    own = registry.spelled("importers", architecture)
    if architecture not in known and own in known.values():
        names = [name for name, part in known.items() if part == own]
        raise UnknownPart(f"{own} is an importer, not an architecture", f"one that it knows: {', '.join(names)}", f"say --as {names[0]}")
    if architecture not in known:
        given = f"no architecture {architecture!r}.{nearest(architecture, known)}"
        raise UnknownPart(given, f"known: {', '.join(known)}", "see: warmstart parts importers")
    part: Importer = registry.create("importers", known[architecture], options=options)
    return part


def _match(tensors: Mapping[str, Tensor], part: Importer, architecture: str, file: Path) -> None:
    """All names are there and no others, but for the head, which may be missing as a whole."""
    expected = set(part.names(architecture))
    if not tensors.keys() & set(part.head):
        expected -= set(part.head)
    missing, extra = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if not missing and not extra:
        return
    told = [f"lacks {_listed(missing)}"] * bool(missing) + [f"has {_listed(extra)} too"] * bool(extra)
    better = _closest(tensors.keys(), architecture)
    do = f"these are the names of {better}: --as {better}" if better else "name another architecture with --as, or correct the file"
    raise BackboneNotFound(f"{file} does not fit {architecture}: it {' and '.join(told)}", f"{len(expected)} tensors by its names", do)


def _closest(names: Any, but: str) -> str:
    """The architecture whose names these are; empty where none fits as a whole."""
    for known, part in architectures().items():
        found = registry.create("importers", part)
        expected = set(found.names(known))
        if known != but and expected - set(found.head) <= set(names) <= expected:
            return known
    return ""


def _convert(tensors: Mapping[str, Tensor], part: Importer, architecture: str, file: Path) -> tuple[Network, int]:
    """The network with the weights of the state dict, and its number of classes (0: it has no head)."""
    with_head = part.head[0] in tensors if part.head else False
    n_classes = len(tensors[part.head[0]]) if with_head else 0
    try:
        with seeds.seeded(0):
            made = part.build(architecture, part.sizes(architecture, tensors), classes=n_classes)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
        reason = shortened(str(error))
        raise BackboneNotFound(f"{file} does not make a {architecture}: {reason}", "its shapes", "name another --as") from None
    state = made.state_dict()
    for old, new in part.names(architecture).items():
        if old not in tensors:
            continue
        given, wanted = tensors[old], state[new]
        if given.shape != wanted.shape and given.flatten().shape != wanted.flatten().shape:
            shapes = f"{old} of {file} is {tuple(given.shape)}"
            raise BackboneNotFound(shapes, f"{tuple(wanted.shape)} in {architecture}", "name another architecture with --as")
        state[new] = given.reshape(wanted.shape)
    made.load_state_dict(state)
    return (made.eval() if with_head else _without_head(made).eval()), n_classes


def _without_head(made: Network) -> Network:
    body: Any = made.body
    return Network(body if bodies.is_own(body) else body.base_model, None)


def _save(made: Network, part: Importer, folder: Path, names: Sequence[str]) -> None:
    config: Any = made.body.config
    folder.mkdir(parents=True)
    if not bodies.is_own(made.body) and names:
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    store.save_transformers(made.body, folder)
    if made.head is not None:
        predictor.save_head(made.head, folder)
    part.save(folder)


@torch.inference_mode()
def _prove(folder: Path, tensors: Mapping[str, Tensor], part: Importer, architecture: str) -> float:
    """The folder, opened as ``adapt`` and ``predict`` open it, gives what the state dict gives."""
    batch = part.example(torch.Generator().manual_seed(0))
    features, logits = part.reference(architecture, tensors, batch)
    body = store.load_body(folder)
    state = network.last_state(body(**batch))
    pairs = [(network.masked_mean(state, network.state_mask(body, state, batch)), features)]
    if logits is not None:
        pairs.append((predictor.load_network(folder)(batch), logits))
    error = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape or not expected.isfinite().all():
            raise RunError(f"the body gives {tuple(found.shape)}", f"{tuple(expected.shape)}, finite", "check that the weights are whole")
        error = max(error, float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    if not error <= TOLERANCE:
        raise RunError(f"the converted {architecture} differs from its state dict by {error:.2g}", f"{TOLERANCE:g} at most", "report this")
    return error


def _class_names(file: Path | None, n_classes: int) -> list[str]:
    """Names of the classes, equal ones told apart by their number; without a file numbers."""
    if file is None:
        return [str(i) for i in range(n_classes)]
    names = _read_names(file)
    if n_classes == 0:
        raise DataError(f"{file} names classes, but the state dict has no classifier", "no --classes", "leave it out")
    if len(names) != n_classes:
        raise DataError(f"{file} names {len(names)} classes", f"{n_classes}, one a line, as the classifier has", "give the right file")
    often = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in often else name for i, name in enumerate(names)]


def _read_names(file: Path) -> list[str]:
    expected = "one name a line, a CSV with a column of names, or a JSON list"
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":
            given = json.loads(text)
            return [str(v) for v in (given.values() if isinstance(given, dict) else given)]
    except FileNotFoundError:
        raise FileNotFound(f"no file {file}", expected, "correct the path given by --classes") from None
    except (OSError, ValueError, TypeError) as error:
        raise FileUnreadable(f"{file} cannot be read: {error}", expected, "give another file") from None
    if file.suffix.lower() != ".csv":
        return [line.strip() for line in text.splitlines() if line.strip()]
    rows = list(csv.DictReader(text.splitlines()))
    column = next((c for c in CLASS_COLUMNS if rows and c in rows[0]), None)
    if column is None:
        raise FileUnreadable(f"{file} has no column of names", f"one of {', '.join(CLASS_COLUMNS)}", "rename it, or give a text file")
    return [row[column] for row in rows]


def _describe(folder: Path, found: Imported, file: Path, names: Sequence[str], *, task: str, origin: str) -> None:
    """Settings, README and card."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    store.write_json(folder / SETTINGS, {"max_length": 256, "precision": "float32", "options": {}})
    own = str(store.read_config(folder).get("model_type", "")).startswith(bodies.PREFIX)
    body = Body(found.architecture, store.fingerprint(folder), found.licence, found.parameters, "warmstart" if own else "transformers")
    card = Card(
        verb="import",
        task=task,
        modality=found.modality,
        strategy=found.architecture,
        labels=tuple(names),
        columns={found.modality: found.modality, "label": "label"},
        backbone=body,
        data=Source(file.name, 0, digest),
        head="body" if not names else "pooled" if (folder / predictor.HEAD).exists() else "native",
        parents=(origin or file.name,),
    )
    facts = {
        "origin": origin or "not given",
        "file": f"`{file.name}`, SHA-256 `{digest}`",
        "parameters": f"{found.parameters:,}",
        "classes": f"{found.classes:,}" if names else "none: a body without a head",
        "largest difference to the state dict": f"{found.error:.1g} of the largest number",
    }
    store.write_text(folder / "README.md", cards.imported_readme(card, facts))
    card.write(folder)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
