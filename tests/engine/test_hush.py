"""What C libraries write to standard error."""

from __future__ import annotations

import os
import threading

import pytest

from warmstart.engine.hush import hushed


def test_nothing_is_written_until_the_last_thread_is_out(capfd: pytest.CaptureFixture[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with hushed():
            inside.set()
            leave.wait(10)
            os.write(2, b"from the other")

    thread = threading.Thread(target=other)
    with hushed():
        thread.start()
        assert inside.wait(10)
    os.write(2, b"from one that is out already")
    leave.set()
    thread.join()
    assert capfd.readouterr().err == ""
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


def test_an_error_brings_it_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), hushed():
        raise ValueError("wrong")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
