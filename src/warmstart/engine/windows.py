"""Windows of a stream of tokens: documents one after the other, an end mark behind each, cut into pieces of the context's length.

Shapes: B windows of a batch, T tokens of context.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core.errors import DataError
from warmstart.engine.tokens import Order, TokenFile


class Windows:
    """Training batches and held-out rows of one token file.

    The stream is never written out: where a document ends is looked up. An epoch sees every token once (but for fewer than ``2 T`` at the
    ends), with borders of windows in other places each time.
    """

    def __init__(self, file: TokenFile, *, context: int, end: int | None, seed: int = 0) -> None:
        self.file, self.context, self.end, self.seed = file, context, end, seed
        marks = 0 if end is None else 1
        bounds = np.asarray(file.document_bounds())
        self._begins = bounds + marks * np.arange(len(bounds))  # (D + 1,) in the stream
        self.length = int(self._begins[-1])
        if self.length < context + 1:
            raise DataError(
                f"the text has {self.length:,} tokens for a context of {context:,}", f"at least {context + 1:,}", "give more text"
            )
        self.count = max(1, (self.length - 1 - context) // context)
        """Windows in an epoch."""
        self._order = Order(self.count, seed=seed)

    def batch(self, first: int, size: int, *, rank: int = 0, world: int = 1) -> Tensor:
        """This process's share ``(B, T + 1)`` of windows ``first`` to ``first + size`` of the endless sequence of epochs."""
        places = np.arange(first + rank, first + size, world)
        epochs, inside = np.divmod(places, self.count)
        begins = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            begins[here] = self._order.take(epoch, inside[here]) * self.context + self._shift(epoch)
        return self._read(begins)

    def rows(self, limit: int | None = None) -> Tensor:
        """Windows that follow each other without overlap ``(B, T + 1)``, evenly spread where there are more than ``limit``."""
        begins = np.arange(0, self.length - self.context, self.context)
        if limit is not None and len(begins) > limit:
            begins = begins[np.linspace(0, len(begins) - 1, limit).astype(np.int64)]
        return self._read(begins)

    def _shift(self, epoch: int) -> int:
        room = self.length - 1 - self.count * self.context
        return int(np.random.default_rng((self.seed, epoch)).integers(room + 1))

    def _read(self, begins: NDArray[np.int64]) -> Tensor:
        places = begins[:, None] + np.arange(self.context + 1)  # (B, T + 1)
        if self.end is None:
            return torch.from_numpy(self.file.tokens[places].astype(np.int64))
        documents = np.searchsorted(self._begins, places, "right") - 1
        ends = places == self._begins[documents + 1] - 1
        inside = np.minimum(places - documents, len(self.file.tokens) - 1)
        return torch.from_numpy(np.where(ends, self.end, self.file.tokens[inside]).astype(np.int64))
