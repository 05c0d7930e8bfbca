"""Windows of a token stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from warmstart.core.errors import DataError
from warmstart.engine import tokens, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.windows import Windows


def _windows(folder: Path, texts: list[str], context: int) -> tuple[Windows, list[int]]:
    """Windows, and the stream as it should be."""
    corpus = Texts(texts, whole=True)
    tokenizer = vocabulary.train(corpus, kind="characters", size=100)
    file = tokens.build(corpus, tokenizer, folder=folder)["train"]
    stream = [i for text in texts for i in [*tokenizer.encode(text).ids, 0]]
    return Windows(file, context=context, end=0, seed=3), stream


def test_rows_cover_the_stream_with_an_end_behind_every_document(tmp_path: Path) -> None:
    windows, stream = _windows(tmp_path, ["abcd", "e", "fghijk"], 3)
    assert windows.length == len(stream) == 14
    assert windows.rows().tolist() == [stream[i : i + 4] for i in range(0, 11, 3)]
    assert len(windows.rows(2)) == 2


def test_an_epoch_sees_nearly_everything_once_and_epochs_differ(tmp_path: Path) -> None:
    windows, stream = _windows(tmp_path, ["".join(chr(97 + i % 26) for i in range(199))], 5)
    first, second = (windows.batch(e * windows.count, windows.count) for e in (0, 1))
    assert sum(len(set(map(tuple, w.tolist()))) for w in (first, second)) >= 26
    assert first.shape == (windows.count, 6)
    assert windows.count * 5 > len(stream) - 2 * 5 - 1
    assert not torch.equal(first, second)
    text = "".join(map(str, stream))
    assert all("".join(map(str, row)) in text for row in first.tolist())


def test_shares_together_are_the_whole_batch(tmp_path: Path) -> None:
    windows, _ = _windows(tmp_path, ["abcdefgh" * 30], 4)
    whole = windows.batch(50, 7)  # over the border of an epoch
    shares = [windows.batch(50, 7, rank=rank, world=3) for rank in range(3)]
    assert sorted(whole.tolist()) == sorted(row for share in shares for row in share.tolist())


def test_too_short_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 tokens for a context of 5"):
        _windows(tmp_path, ["ab"], 5)
