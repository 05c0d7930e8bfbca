"""Rows as a body takes them: made once, a few at a time, and put aside where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from warmstart.core.protocols import Encoded, Encoder, Input
from warmstart.engine.aside import Kept, Shed, opened

AT_ONCE = 256
WINDOW_ROWS, WINDOW_BYTES = 20_000, 256 * 2**20
"""Rows that are sorted by length together, as far as they fit into so many bytes."""


class Encodings(Sequence[Encoded]):
    """What ``encoder`` makes of ``inputs``; ``sizes (N,)`` says what each costs a body.

    Nothing is kept of encodings that cost next to nothing (``instant`` of an encoder).
    """

    def __init__(self, encoder: Encoder, inputs: Sequence[Input]) -> None:
        self._encoder, self._inputs = encoder, inputs
        self._rows: list[dict[str, Kept]] | None = None if getattr(encoder, "instant", False) else []
        shed, sizes = Shed(), []
        for start in range(0, len(inputs), AT_ONCE):
            for example in encoder.encode(inputs[start : start + AT_ONCE]):
                sizes.append(encoder.size(example))
                if self._rows is not None:
                    self._rows.append({name: shed.keep(array) for name, array in example.items()})
        self.sizes: NDArray[np.int64] = np.array(sizes, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, row: int) -> Encoded:  # type: ignore[override]  # rows are asked for one by one
        if self._rows is None:
            return self._encoder.encode([self._inputs[row]])[0]
        return {name: opened(kept) for name, kept in self._rows[row].items()}


def windows(encoder: Encoder, inputs: Sequence[Input]) -> Iterator[list[Encoded]]:
    """What ``encoder`` makes of ``inputs``, in order, in as long lists as the memory should hold."""
    found: list[Encoded] = []
    size = 0
    for start in range(0, len(inputs), AT_ONCE):
        more = encoder.encode(inputs[start : start + AT_ONCE])
        found += more
        size += sum(array.nbytes for example in more for array in example.values())
        if size >= WINDOW_BYTES or len(found) >= WINDOW_ROWS:
            yield found
            found, size = [], 0
    if found:
        yield found
