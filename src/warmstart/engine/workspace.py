"""The folder beside the output in which a run works: resumable while it lasts, renamed into place when it is whole."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from warmstart.core.errors import FolderExists, InputError
from warmstart.core.recipe import PretrainRecipe, Recipe
from warmstart.engine import store
from warmstart.engine.clock import Clock

WORK = ".work"
"""Hidden, so that no card hashes it: what only a resumed run needs."""

RUN = "run.json"
LOCK = "lock"


class Workspace:
    """``OUT.partial`` holds the run until ``publish``; ``OUT`` never holds half a result.

    Raises:
        FolderExists: ``out`` is there and ``force`` was not given.
    """

    def __init__(self, out: Path, *, force: bool) -> None:
        if out.exists() and not force:
            raise FolderExists(f"{out} exists already", "a new folder", "choose another --out, or overwrite it with --force")
        if out.exists() and not (out / "card.json").is_file() and (not out.is_dir() or any(out.iterdir())):
            raise FolderExists(
                f"{out} exists and is no model folder", "a model folder, or nothing", "choose another --out: --force only overwrites models"
            )
        self.out, self.force = out, force
        self.partial = out.with_name(f"{out.name}.partial")
        self.work = self.partial / WORK
        self.resumed = self._fresh = False

    def open(self, recipe: Recipe | PretrainRecipe, data_hash: str, clock: Clock) -> None:
        """Begin, or go on with what an interrupted run of the same recipe and rows left; its time counts as spent. Only while ``alone``.
        Another budget of an adaptation is no other run.

        Raises:
            FolderExists: The partial folder belongs to another run, and ``force`` was not given.
        """
        others = ["data", "test", "validation", "unlabelled", "parallel"]  # the rows count, not where they lie, nor who computes
        if isinstance(recipe, Recipe):
            others.append("budget")  # what was measured and planned in less time holds; pre-training is planned as a whole
        signature = {"recipe": {k: v for k, v in asdict(recipe).items() if k not in others}, "data": data_hash}
        before = self._read()
        if before is not None and before["signature"] == json.loads(json.dumps(signature)):
            self.resumed = True
            clock.spent_before = before["spent"] + max(0.0, self._newest() - before["started"])
        elif before is not None and not self.force:
            raise FolderExists(
                f"{self.partial} holds an interrupted run with other settings or rows",
                "the same command as then, which resumes it",
                "start over with --force, or choose another --out",
            )
        elif before is None and self._results():
            raise FolderExists(f"{self.partial} holds something else than a run", "a folder to work in", "move it, or choose another --out")
        else:
            _remove(path for path in self.work.iterdir() if path.name != LOCK)
        _remove(self._results())  # half-written, and made again in any case
        self._fresh = not self.resumed
        run = {"signature": signature, "spent": clock.spent_before, "started": time.time()}
        store.write_json(self.work / RUN, run)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second process out of the same folder. Where the input turns out to be wrong, nothing of a new run stays.

        Raises:
            FolderExists: Another process is working there.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / LOCK).open("w") as file:
            if not _locked(file):
                raise FolderExists(
                    f"another process is writing {self.partial}", "one run for each folder", "wait for it, or choose another --out"
                )
            try:
                yield
            except InputError:
                if self._fresh:
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def publish(self) -> None:
        """Put the whole folder in its place in one step, and take away what only a resumed run needs."""
        old = self.out.with_name(f".{self.out.name}.old")
        if self.out.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.partial.rename(self.out)
        shutil.rmtree(self.out / WORK, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

    def _results(self) -> list[Path]:
        """What a run that was interrupted while it saved its model has left."""
        return [path for path in self.partial.iterdir() if path.name != WORK]

    def _read(self) -> dict[str, Any] | None:
        return store.read_object(self.work / RUN) or None

    def _newest(self) -> float:
        """When an interrupted run last wrote anything: a killed process cannot say how long it ran."""
        files = (path for path in self.partial.rglob("*") if path.is_file() and path.name != LOCK)  # the lock was opened just now
        return max((path.stat().st_mtime for path in files), default=0.0)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _locked(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks of this kind, so no protection either
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
