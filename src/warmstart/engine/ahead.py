"""Work that is done ahead, in a thread, while what came before is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


def ahead(work: Callable[[Given], Found], items: Iterable[Given]) -> Iterator[Found]:
    """``work`` of each item, in order; the next one is at work while the last is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for item in items:
            next_one = thread.submit(work, item)
            if waiting is not None:
                yield waiting.result()
            waiting = next_one
        if waiting is not None:
            yield waiting.result()
