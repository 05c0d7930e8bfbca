"""The house rules that no linter checks by itself, and the import rules that import-linter does."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "warmstart"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
PICKLES = {"pickle", "cPickle", "_pickle", "joblib", "cloudpickle", "dill", "shelve", "marshal"}


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _imports(nodes: list[ast.stmt], path: Path) -> Iterator[str]:
    """Full names of imported modules and names, relative ones resolved."""
    package = ["warmstart", *path.relative_to(SOURCE).parent.parts]
    for top in nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*start, *([node.module] if node.module else [])])
                yield from (f"{module}.{alias.name}" for alias in node.names)


def _at_import_time(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run on import; what is under TYPE_CHECKING does not, nor do bodies of functions."""
    typing_only = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    return [n for n in tree.body if n not in typing_only and not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


def _offences(tree: ast.Module, path: Path) -> Iterator[str]:
    """What is banned everywhere, with its line."""
    for name in _imports(tree.body, path):
        if name.split(".")[0] in PICKLES or name in ("torch.load", "torch.save"):
            yield f"imports {name}"
        if name in (
            "warmstart",
            "warmstart.adapt",
            "warmstart.pretrain",
            "warmstart.load",
            "warmstart.Model",
            "warmstart.Report",
            "warmstart.errors",
        ):
            yield "imports the package root"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield f"line {node.lineno}: {node.func.id}"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: trust_remote_code"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: allow_pickle"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_banned(path: Path) -> None:
    assert list(_offences(ast.parse(path.read_text(encoding="utf-8")), path)) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import pickle", 1),
        ("def f():\n    from joblib import load", 1),
        ("import torch\ntorch.load('x')", 1),
        ("load(trust_remote_code=True)", 1),
        ("load(trust_remote_code=False)\nmodel.eval()", 0),
        ("eval('1')", 1),
        ("from warmstart import errors", 1),
        ("from .. import load", 1),
        ("from ..core.errors import InputError", 0),
    ],
)
def test_the_ban_sees(source: str, count: int) -> None:
    assert len(list(_offences(ast.parse(source), SOURCE / "engine" / "some.py"))) == count


TOP = {"warmstart.core", "warmstart.flags", "warmstart.samples", "warmstart.terminal", "warmstart.cli", "click"}
LIGHT = [p for p in FILES if p.parent == SOURCE or p.relative_to(SOURCE).parts[0] in ("core", "stages")]


@pytest.mark.parametrize("path", LIGHT, ids=_name)
def test_no_framework_at_module_level(path: Path) -> None:
    own = {"core": {"warmstart.core"}, "stages": {"warmstart.core"}}.get(path.relative_to(SOURCE).parts[0], TOP)
    for name in _imports(_at_import_time(ast.parse(path.read_text(encoding="utf-8"))), path):
        light = name.split(".")[0] in sys.stdlib_module_names or any(name == o or name.startswith(f"{o}.") for o in own)
        assert light, f"{name} is imported with {_name(path)}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_sizes(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= MOST_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.body[-1].end_lineno or 0) - first.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


def test_files_are_small() -> None:
    sizes = sorted(path.read_text(encoding="utf-8").count("\n") for path in FILES if path.name != "__init__.py")
    assert sizes[len(sizes) // 2] <= 150


def test_arrows_point_one_way() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: p.stem)
def test_what_benchmarks_import_is_there(path: Path) -> None:
    """They run for hours and seldom, so a name that was moved would be noticed late."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "warmstart":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"
