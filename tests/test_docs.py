"""The documentation is true: its examples run, and the flags it shows exist.

Every ```console block (its ``$ `` lines) and every ```python block of a page runs, in order, in one temporary folder that holds
``examples/``. A block below ``<!-- not run -->`` does not run, but its warmstart commands are still parsed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from warmstart import cli

ROOT = Path(__file__).parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.is_file()]
BLOCK = re.compile(r"(?P<skip><!-- not run -->\s*\n)?^```(?P<kind>console|python)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
MOST_SECONDS = 180


@dataclass(frozen=True)
class Block:
    """One example of a page."""

    kind: str
    code: str
    run: bool

    def commands(self) -> list[str]:
        """The ``$ `` lines of a console block; a line that ends in a backslash goes on in the next."""
        joined = self.code.replace("\\\n", " ") if self.kind == "console" else ""
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def blocks(text: str) -> Iterator[Block]:
    """Every example, in order."""
    for found in BLOCK.finditer(text):
        yield Block(found["kind"], found["code"], run=found["skip"] is None)


def _shell(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "WARMSTART_CACHE": str(folder / ".cache"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    assert run.returncode == 0, f"{command[-1]}\n{run.stdout}\n{run.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.run and block.kind == "python":
            _shell([sys.executable, "-c", block.code], tmp_path)
        elif block.run:
            for command in block.commands():
                _shell(["bash", "-c", f"set -o pipefail; {command}"], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_flags_exist(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        for command in block.commands():
            check_flags(command)


def check_flags(command: str) -> None:
    """Parse every warmstart call of a shell line without running it."""
    words = list(shlex.shlex(command, posix=True, punctuation_chars="|&;<>()"))
    while "warmstart" in words:
        words = words[words.index("warmstart") + 1 :]
        args = words[: next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))]
        if args and args[0] in ("--help", "--version"):
            continue
        context = click.Context(cli.app, info_name="warmstart", **cli.app.context_settings)  # click keeps what it first makes of -h
        name, verb, rest = cli.app.resolve_command(context, args)
        assert verb is not None
        verb.make_context(name, rest, parent=context)


SAMPLE = """
```console
$ warmstart parts \\
    strategies
an output line
$ warmstart doctor | head
```
<!-- not run -->
```python
1 / 0
```
```text
$ warmstart nothing
```
"""


def test_blocks_are_found() -> None:
    found = list(blocks(SAMPLE))
    assert [(block.kind, block.run) for block in found] == [("console", True), ("python", False)]
    assert [shlex.split(command) for command in found[0].commands()] == [
        ["warmstart", "parts", "strategies"],
        ["warmstart", "doctor", "|", "head"],
    ]


def test_a_wrong_flag_is_seen() -> None:
    check_flags('warmstart predict m "a; b" | head && warmstart doctor --json > x')
    with pytest.raises(click.NoSuchOption):
        check_flags("warmstart doctor | warmstart adapt x.csv --out m --bugdet 3")
