"""Other processes, which know nothing of this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

OFTEN = """
import sys, warmstart.engine.fit as fit
from warmstart.cli import main
fit.CHECKPOINT_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""
"""The command with a checkpoint after every step, as a long training would have reached one."""

ANSWER = """
import json, sys
import warmstart
print(json.dumps(warmstart.load(sys.argv[1]).predict(sys.argv[2:])))
"""
"""What a model folder says of some files."""

PREDICT = """
import json, sys
import warmstart
model = warmstart.load(sys.argv[1])
print(json.dumps([list(map(float.hex, r["probabilities"].values())) for r in model.predict(sys.argv[2:])]))
"""
"""What it gives each class, with every bit."""


def in_a_fresh_process(code: str, *args: str | Path, expect: int = 0) -> str:
    """What a program prints that knows nothing of this process."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout


def stopped(args: list[str], until: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a command, stop it as soon as this file is there, and give its exit code and standard error."""
    process = subprocess.Popen([sys.executable, "-c", OFTEN, *args], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not until.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert until.exists(), process.communicate()[1]
    process.send_signal(how)
    _, err = process.communicate()
    return process.returncode, err
