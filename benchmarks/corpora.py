"""The labelled texts of the benchmarks, as rows of (text, label), the same for every method; of recordings, rows of (file, label).

They are read from the folder that the environment variable WARMSTART_DATA names, or ``../shared/data``: one folder per data set,
with ``train.csv`` and ``test.csv``; recordings are listed in ``index.csv``, with columns file, label and split.
"""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("WARMSTART_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))

Row = tuple[str, str]

TEXT_COLUMNS = {"sst2": ["text"], "trec": ["text"], "ag_news": ["title", "description"], "banking77": ["text"]}
SOUNDS = ("fsdd",)
DATASETS = (*TEXT_COLUMNS, *SOUNDS)


def read(name: str, split: str) -> list[Row]:
    """The rows of one split; the text of AG News is title and description, joined."""
    if name in SOUNDS:
        with (DATA / name / "index.csv").open(encoding="utf-8", newline="") as file:
            return [(str(DATA / name / row["file"]), row["label"]) for row in csv.DictReader(file) if row["split"] == split]
    with (DATA / name / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [(". ".join(row[c] for c in TEXT_COLUMNS[name]), row["label"]) for row in csv.DictReader(file)]


def write(path: Path, rows: list[Row], *, column: str = "text") -> Path:
    """Write a CSV file with the columns text (or another name) and label."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column, "label"])
        writer.writerows(rows)
    return path


def texts(name: str, count: int) -> list[str]:
    """At most ``count`` training texts in random order; ``scitldr`` are abstracts of papers, some 200 tokens each."""
    if name == "scitldr":
        lines = (DATA / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
        found = [" ".join(json.loads(line)["source"]) for line in lines]
    else:
        found = [text for text, _ in read(name, "train")]
    return sample(found, count)


def sample(rows: list[Any], count: int) -> list[Any]:
    """At most ``count`` of the rows in random order, always the same."""
    chance = random.Random(0)  # noqa: S311 - a draw that can be repeated, not a secret
    return chance.sample(rows, min(count, len(rows)))


def draw(rows: list[Row], per_class: int, seed: int) -> list[Row]:
    """``per_class`` rows of each class (all of them where a class has fewer), in random order."""
    chance = random.Random(seed)  # noqa: S311 - a draw that can be repeated, not a secret
    by_label: dict[str, list[Row]] = {}
    for row in chance.sample(rows, len(rows)):
        by_label.setdefault(row[1], []).append(row)
    drawn = [row for label in sorted(by_label) for row in by_label[label][:per_class]]
    return chance.sample(drawn, len(drawn))


def grow(rows: list[Row], count: int, seed: int) -> list[Row]:
    """``count`` distinct rows: rows drawn with replacement, each with one word taken out and one word of another row put in."""
    chance = random.Random(seed)  # noqa: S311 - a draw that can be repeated, not a secret
    grown: dict[str, str] = dict(rows[:count])
    while len(grown) < count:
        text, label = chance.choice(rows)
        words = text.split()
        words.pop(chance.randrange(len(words)))
        words.insert(chance.randint(0, len(words)), chance.choice(chance.choice(rows)[0].split()))
        grown.setdefault(" ".join(words), label)
    return chance.sample(list(grown.items()), count)
