"""Batches: every example once, little padding, and the same company-independent length wherever an example goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiny_images import hf_backbone
from warmstart.engine import batches, store

LENGTHS = st.lists(st.integers(1, 600), min_size=0, max_size=300)


@given(LENGTHS, st.sampled_from([64, 1024]))
def test_uniform_batches_hold_every_example_once_within_the_budget(lengths: list[int], tokens: int) -> None:
    found = batches.uniform(lengths, tokens=tokens)
    seen = [int(i) for part, _ in found for i in part]
    assert sorted(seen) == list(range(len(lengths)))
    for part, length in found:
        assert {batches.padded(lengths[i]) for i in part} == {length}
        assert len(part) * length <= tokens or len(part) == 1


@given(st.integers(1, 5000))
def test_padding_is_small(length: int) -> None:
    padded = batches.padded(length)
    assert length <= padded < length + 16
    assert padded <= 1.15 * length + 1


@given(LENGTHS, st.integers(0, 5))
def test_what_is_left_of_a_pass_is_batched_as_it_would_have_been(lengths: list[int], done: int) -> None:
    """A pass that was killed after some batches goes on with the same ones."""
    found = batches.uniform(lengths)
    gone = {int(i) for part, _ in found[:done] for i in part}
    left = [i for i in range(len(lengths)) if i not in gone]
    again = [([left[i] for i in part], size) for part, size in batches.uniform([lengths[i] for i in left])]
    assert again == [(part.tolist(), size) for part, size in found[done:]]


@given(LENGTHS, st.integers(1, 40), st.integers(0, 99))
def test_shuffled_batches_hold_every_example_once_within_both_bounds(lengths: list[int], rows: int, seed: int) -> None:
    found = batches.shuffled(lengths, tokens=256, rows=rows, random=np.random.default_rng(seed))
    assert sorted(int(i) for part in found for i in part) == list(range(len(lengths)))
    for part in found:
        assert len(part) <= rows
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= 256


def test_shuffling_mixes_neighbours_and_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(4, 60, 2000)
    epochs = [batches.shuffled(lengths, tokens=1024, rows=32, random=np.random.default_rng(seed)) for seed in (1, 2)]
    companions = [{int(i) for part in epoch if 7 in part for i in part} for epoch in epochs]
    assert companions[0] != companions[1]
    used = sum(len(part) * int(lengths[part].max()) for part in epochs[0])
    assert used < 1.35 * lengths.sum()


def test_bodies_of_convolutions_run_in_smaller_batches(tmp_path: Path) -> None:
    found = {name: batches.frozen_tokens(store.load_body(hf_backbone(name, tmp_path / name))) for name in ("vit", "resnet", "mobilenet")}
    assert found == {"vit": batches.FROZEN_TOKENS, "resnet": batches.FROZEN_MAPS, "mobilenet": batches.FROZEN_MAPS}
