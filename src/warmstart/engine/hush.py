"""What libraries in C write to the process's standard error, past Python, goes nowhere while they work."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class _State:
    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    before: int | None = None


_STATE = _State()


@contextmanager
def hushed() -> Iterator[None]:
    """Within the block descriptor 2 leads nowhere, in all threads: the first one in sends it away, the last one out brings it back."""
    with _STATE.lock:
        if _STATE.inside == 0:
            _STATE.before = _send_away()
        _STATE.inside += 1
    try:
        yield
    finally:
        with _STATE.lock:
            _STATE.inside -= 1
            if _STATE.inside == 0 and _STATE.before is not None:
                os.dup2(_STATE.before, 2)
                os.close(_STATE.before)


def _send_away() -> int | None:
    """A copy of what 2 was; None where there is none."""
    with suppress(OSError, ValueError, AttributeError):  # no standard error, as in a service
        sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return before
