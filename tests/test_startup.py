"""Starting is light: an allow-list of what may be imported before a command needs more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ALLOWED = {"warmstart", "click"}

IMPORTED = """
import json, sys
before = set(sys.modules)
{code}
found = {{name.split(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print("\\n" + json.dumps(sorted(found)))
"""


@pytest.mark.parametrize(
    "code",
    [
        "import warmstart",
        "import warmstart; warmstart.__version__, warmstart.errors, warmstart.Report",
        "from warmstart.cli import main; assert main(['--help']) == 0",
        "from warmstart.cli import main; assert main(['adapt', '--help']) == 0",
        "from warmstart.cli import main; assert main(['parts']) == 0",
        "from warmstart.cli import main; assert main(['parts', 'strategies', '--json']) == 0",
        "from warmstart.cli import main; assert main(['adapt', 'x.csv', '--out', 'm', '--budget', 'soon']) == 2",
    ],
)
def test_no_framework(code: str) -> None:
    run = subprocess.run([sys.executable, "-c", IMPORTED.format(code=code)], capture_output=True, text=True, check=True)
    assert set(json.loads(run.stdout.splitlines()[-1])) <= ALLOWED


def test_public_names() -> None:
    """Every public name but the two that bring a framework resolves at once; an unknown one is an AttributeError."""
    code = (
        "import warmstart; assert set(dir(warmstart)) == set(warmstart.__all__); "
        "assert callable(warmstart.adapt) and callable(warmstart.load); warmstart.adpt"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'warmstart' has no attribute 'adpt'" in run.stderr
