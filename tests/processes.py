"""Other processes, which know nothing of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def in_a_fresh_process(code: str, *args: str | Path, expect: int = 0) -> str:
    """What a program prints that knows nothing of this process."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout
