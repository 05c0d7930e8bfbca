"""Work in threads: ahead, while what came before is used, or many pieces at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")

AT_ONCE = 1024
"""Items that are handed to the threads before the first is waited for."""


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


def together(work: Callable[[Given], Found], items: Sequence[Given], *, threads: int) -> list[Found]:
    """``work`` of all items, in order, by so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, len(items), AT_ONCE)
        return [found for start in starts for found in pool.map(work, items[start : start + AT_ONCE])]
