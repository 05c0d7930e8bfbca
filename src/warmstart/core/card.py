"""A card: what a model folder is and where it came from. ``card.json`` is written last, so a folder that has one is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from warmstart.core.errors import DamagedModel, NotAModel
from warmstart.core.report import Metric, show

FORMAT = 1
"""Raised when an older warmstart could misread a folder."""

FILE = "card.json"

AGAIN = "copy or train the model again"

PIPELINES = {
    "speech_recognition": "automatic-speech-recognition",
    "object_detection": "object-detection",
    "semantic_segmentation": "image-segmentation",
}
"""What the hub calls tasks that do not classify."""
LOADING = {
    "native": "The head is the architecture's own, so `transformers` makes the same predictions as `warmstart`.",
    "pooled": "The head is warmstart's (pooled states and a linear layer), which `transformers` cannot express: it opens the body alone.",
    "none": "This strategy runs no pre-trained body: only `warmstart` makes its predictions.",
    "body": "A pre-trained body without a head for any task: `warmstart adapt` starts from it.",
}


@dataclass(frozen=True)
class Body:
    """The pre-trained body a model started from; ``parameters`` counts its numbers; ``opened_by`` is who opens it as it is saved."""

    name: str
    fingerprint: str
    licence: str
    parameters: int
    opened_by: Literal["transformers", "warmstart"] = "transformers"


@dataclass(frozen=True)
class Source:
    """The data a model learned from; ``hash`` is that of the rows as they were used, ``views`` the augmented views of each."""

    source: str
    rows: int
    hash: str
    views: int = 0


def installed() -> dict[str, str]:
    """Versions that decide a result: Python and the libraries, without importing them."""
    found = {"python": platform.python_version()}
    for name in ("warmstart", "torch", "transformers", "peft", "scikit-learn", "numpy", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Card:
    """What a model folder is.

    ``head`` says how the folder loads: ``native`` (transformers' own head), ``pooled`` (ours), ``none`` (no body is run), ``body`` (a
    body alone, from ``pretrain``; ``task`` is then "pretraining" and ``strategy`` the objective). ``parents``
    are the folders or names it was made from; logits were divided by ``temperature``; ``created`` is UTC; ``hashes`` is the SHA-256
    of every other file in the folder.
    """

    verb: str
    task: str
    modality: str
    strategy: str
    labels: tuple[str, ...]
    columns: dict[str, str]
    backbone: Body
    data: Source
    head: Literal["native", "pooled", "none", "body"]
    temperature: float = 1.0
    parents: tuple[str, ...] = ()
    metrics: dict[str, Metric] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=installed)
    format: int = FORMAT

    def write(self, folder: Path) -> Card:
        """Hash every file in the folder and write ``card.json`` as its last file; returns the card as written."""
        card = dataclasses.replace(self, hashes=hash_files(folder))
        temporary = folder / f".{FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, folder / FILE)
        return card

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of a model folder.

        Raises:
            NotAModel: No folder, no card, a broken card, or one of a newer format.
        """
        try:
            given = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(folder) from None
        except (OSError, ValueError) as error:
            raise NotAModel(f"{folder / FILE} cannot be read: {error}", "JSON", AGAIN) from None
        version = given.get("format") if isinstance(given, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise NotAModel(f"{folder} has format {version}", f"this warmstart reads up to {FORMAT}", "run: pip install -U warmstart")
        try:
            return cls(**_typed(given))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise NotAModel(
                f"{folder / FILE} is not a model card: {error}", "the file that warmstart wrote", "train the model again"
            ) from None

    def verify(self, folder: Path) -> None:
        """Compare every file with its hash, except ``README.md``, which is for people to edit.

        Raises:
            DamagedModel: A file is missing or is not the one that was written; names it.
        """
        for name, expected in self.hashes.items():
            if name == "README.md":
                continue
            path = folder / name
            if not path.is_file():
                raise DamagedModel(f"{path} is missing", f"the files listed in {FILE}", AGAIN)
            if _sha256(path) != expected:
                raise DamagedModel(f"{path} was changed after it was written", f"SHA-256 {expected[:12]}...", AGAIN)


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder, by its path with forward slashes; without the card and hidden files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != FILE and not any(part.startswith(".") for part in name.split("/")):
            found[name] = _sha256(path)
    return found


def licence(folder: Path) -> str:
    """The licence that a folder's own card or README names, in Hugging Face's spelling; ``unknown`` where neither does."""
    if (folder / FILE).is_file():
        return Card.read(folder).backbone.licence
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else "unknown"


def readme(card: Card, metrics: Mapping[str, Metric]) -> str:
    """The folder's ``README.md``: a Hugging Face model card with what was measured, how to load it, and its limits."""
    rows = "\n".join(f"| {name} | {show(metric)} |" for name, metric in metrics.items())
    labels = ", ".join(f"`{label}`" for label in card.labels[:100]) + (
        f" and {len(card.labels) - 100} more" if len(card.labels) > 100 else ""
    )
    body, plain = card.backbone, card.task not in PIPELINES
    told = f"It tells {len(card.labels)} labels apart" if plain else f"Its answers are made of {len(card.labels)} labels"
    calibrated = (
        f""" Probabilities
were calibrated on held-out rows (temperature {card.temperature:.3g}); on other data check them with `warmstart evaluate`."""
        if plain
        else ""
    )
    return f"""{_front_matter(card)}
# {card.modality.capitalize()} model ({card.task}): {card.strategy} on {body.name}

Made with `warmstart {card.verb}`. {told}: {labels}.

## Measured

| metric | value [95 % interval] |
|---|---|
{rows}

`report.html` shows the ladder that led here, calibration, and the most confident errors.

## Load

{_loading(card)}
## Data

{card.data.rows:,} rows from `{Path(card.data.source).name or card.data.source}`, columns {_code(card.columns)}.

## Body

`{body.name}`, {body.parameters:,} parameters, licence: {body.licence}, fingerprint `{body.fingerprint}`.

## Limits

The numbers hold for rows like those they were measured on. A label that was not among the training rows is never predicted.{calibrated}
"""


def body_readme(card: Card, facts: Mapping[str, str]) -> str:
    """The ``README.md`` of a pre-trained body: what it learned from, what was measured, how to go on from it."""
    rows = "\n".join(f"| {name} | {show(metric)} |" for name, metric in card.metrics.items())
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    body = card.backbone
    start = f"It went on from `{card.parents[0]}`." if card.parents else "It started from random weights."
    return f"""---
license: {json.dumps(body.licence)}
library_name: warmstart
tags:
- warmstart
- {card.strategy}
---

# {card.modality.capitalize()} body, pre-trained ({card.strategy})

Made with `warmstart pretrain --objective {card.strategy}`. {start}

{told}

## Measured

| metric | value [95 % interval] |
|---|---|
{rows}

`report.html` shows how training went.

## Go on from it

```
warmstart adapt DATA --backbone path/to/this/folder --out model
```

## Data

`{Path(card.data.source).name or card.data.source}`. What licence the weights may have depends on these data.
"""


def imported_readme(card: Card, facts: Mapping[str, str]) -> str:
    """The ``README.md`` of a state dict that was converted: where it came from, and what can be done with it."""
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    uses = ["warmstart adapt DATA --backbone path/to/this/folder --out model"]
    if card.labels:
        uses += ["warmstart predict path/to/this/folder FILE", "warmstart evaluate path/to/this/folder DATA"]
    joined = "\n".join(uses)
    return f"""---
license: {json.dumps(card.backbone.licence)}
library_name: {"transformers" if card.backbone.opened_by == "transformers" else "warmstart"}
tags:
- warmstart
- {card.strategy}
---

# {card.strategy}

Converted with `warmstart models import`. What it gives was compared with the state dict that it was made from.

{told}

## Use

```
{joined}
```
"""


def _front_matter(card: Card) -> str:
    body = card.backbone
    lines = ["---", f"license: {json.dumps(body.licence)}", f"pipeline_tag: {_pipeline(card)}"]
    lines.append(f"library_name: {'transformers' if card.head == 'native' else 'warmstart'}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", body.name):  # anything else is no name on the hub, which would refuse it
        lines.append(f"base_model: {json.dumps(body.name)}")
    return "\n".join([*lines, "tags:", "- warmstart", f"- {card.strategy.replace('_', '-')}", "---", ""])


def _pipeline(card: Card) -> str:
    """What the hub calls the task."""
    return PIPELINES.get(card.task, f"{card.modality}-classification")


def _loading(card: Card) -> str:
    own = card.head == "pooled" and card.backbone.opened_by == "warmstart"
    lines = [
        "Body and head are warmstart's own." if own else LOADING[card.head],
        "",
        "```python",
        "import warmstart",
        "",
        'model = warmstart.load("path/to/this/folder")',
        "```",
        "",
    ]
    if card.head == "native":
        call = f'pipeline("{card.modality}-classification", model="path/to/this/folder")'
        lines += ["```python", "from transformers import pipeline", "", f"classify = {call}", "```", ""]
    if card.head == "pooled" and not own:
        call = 'AutoModel.from_pretrained("path/to/this/folder")'
        lines += ["```python", "from transformers import AutoModel", "", f"body = {call}", "```", ""]
    return "\n".join(lines)


def _code(columns: Mapping[str, str]) -> str:
    return ", ".join(f"`{column}` as {role}" for role, column in columns.items())


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """JSON back to the card's own types; fields that this version does not know are dropped."""
    known = {f.name for f in dataclasses.fields(Card)}
    return {k: v for k, v in given.items() if k in known} | {
        "labels": tuple(given["labels"]),
        "parents": tuple(given["parents"]),
        "backbone": Body(**given["backbone"]),
        "data": Source(**given["data"]),
        "metrics": {name: Metric(**metric) for name, metric in given["metrics"].items()},
    }


def _missing(folder: Path) -> NotAModel:
    if not folder.is_dir():
        return NotAModel(f"no model folder {folder}", "a folder that warmstart adapt wrote", "correct the path")
    return NotAModel(
        f"{folder} has no {FILE}", "a folder that warmstart finished writing", "run the same warmstart adapt command again: it resumes"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
