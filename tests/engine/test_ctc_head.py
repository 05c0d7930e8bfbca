"""Heads that hear characters in a body's states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from warmstart.core.errors import CutRefused
from warmstart.engine import ctc, ctc_head, store, transcripts
from warmstart.engine.ctc_head import Head

PLAIN: dict[str, Any] = {"beam": 1, "language": None, "weight": 0.5, "reward": 0.5}


def _head(frames: float = 20.0, shape: tuple[int, ...] = (20, 8), time: int = 2) -> Head:
    torch.manual_seed(0)
    return ctc_head.convolutional(
        [shape] * 3, ["a", "b", " "], [transcripts.points("a bb a")], np.array([frames]), decoding=PLAIN, time=time
    ).eval()


def _run(head: Head, state: Tensor, mask: Tensor | None = None) -> Tensor:
    found: Tensor = head([state] * len(head.points), {"state_masks": [mask] * len(head.points)})
    return found


def test_an_answer_does_not_depend_on_its_company() -> None:
    head, state = _head(), torch.randn(2, 20, 8)
    mask = torch.ones(2, 20)
    mask[1, 12:] = 0
    together = _run(head, state, mask)
    alone = _run(head, state[1:, :12])
    assert ctc.frames(together).tolist() == [20, 12]
    assert torch.allclose(together[1, :12], alone[0], atol=1e-5)
    other = state.clone()
    other[1, 12:] = 7.0
    assert torch.equal(_run(head, other, mask), together)


def test_it_learns_and_is_made_again_from_its_settings() -> None:
    head, state = _head().train(), torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(1))
    targets = [transcripts.points("a bb a"), transcripts.points("ba")]
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(_run(head, state), targets, 0.0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    compact = head.eval().compact(_run(head, state))
    assert [transcripts.text_of(row[1:]) for row in compact] == ["a bb a", "ba"]
    assert ((compact[:, 0] > 0) & (compact[:, 0] <= 1)).all()
    again = Head(json.loads(json.dumps(head.settings)))
    again.load_state_dict(head.state_dict())
    assert np.array_equal(again.eval().compact(_run(again, state)), compact)


@pytest.mark.parametrize(("frames", "times"), [(8.0, 1), (4.0, 2), (1.0, 8)])
def test_time_is_stretched_where_frames_are_too_few(frames: float, times: int) -> None:
    head = _head(frames)
    assert head.settings["upsample"] == times
    assert _run(head, torch.randn(1, 5, 8)).shape == (1, 5 * times, 4)


def test_bodies_without_frames_are_refused() -> None:
    with pytest.raises(CutRefused, match="0 frames for a transcript of 6"):
        _head(0.4)
    with pytest.raises(CutRefused, match="one vector"):
        _head(shape=(8,))


@pytest.mark.parametrize("time", [2, 3])
def test_maps_are_read_along_time(time: int) -> None:
    head = _head(shape=(4, 10, 6), time=time)
    frames, others = (10, 6) if time == 2 else (6, 10)
    assert head.settings["dims"][0] == 4 * others
    assert _run(head, torch.randn(2, 4, 10, 6)).shape == (2, frames, 4)


def test_points_are_spread_over_the_upper_half() -> None:
    assert ctc_head.chosen([(50, 8)] * 13) == (6, 9, 12)
    assert ctc_head.chosen([(8, 20, 20), (16, 10, 10), (16, 10, 10), (16,)]) == (1, 2)


def test_a_bodys_own_layer_is_found(tmp_path: Path) -> None:
    weight, bias = torch.randn(6, 8), torch.randn(6)
    assert ctc_head.native(tmp_path, 2, ["A"], decoding=PLAIN) is None
    store.write_json(tmp_path / "vocab.json", {"<pad>": 0, "|": 1, "A": 2, "B": 3, "<s>": 4, "Z": 5})
    store.write_json(tmp_path / "config.json", {"pad_token_id": 0})
    store.write_tensors(tmp_path / "model.safetensors", {"lm_head.weight": weight, "lm_head.bias": bias})
    head = ctc_head.native(tmp_path, 2, [" ", "a", "b"], decoding=PLAIN)
    assert head is not None
    state = torch.randn(1, 7, 8)
    assert torch.allclose(head([state], {"state_masks": [None]})[0], (state @ weight.T + bias)[0][:, [0, 1, 2, 3]], atol=1e-6)
    assert ctc_head.native(tmp_path, 2, ["a", "é", "ü"], decoding=PLAIN) is None
