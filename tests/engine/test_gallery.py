"""A page stays below its size whatever its pictures and sounds are, and what is left out is what matters least."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from warmstart.core.report import ErrorCase, Neighbour
from warmstart.engine import gallery, images, sound
from warmstart.engine.images import Picture
from warmstart.engine.sound import Sound

ROOM = 1_300_000


def noise(height: int, width: int, seed: int) -> Picture:
    """What compresses worst."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return images.read(pixels, folder=None, shape=None, form="")  # type: ignore[arg-type]


def recording(seconds: float, seed: int) -> Sound:
    samples = np.random.default_rng(seed).normal(0, 0.2, int(16_000 * seconds)).astype(np.float32)
    return Sound(samples, 16_000, 16_000, seconds)


def case(i: int, picture: str, heard: str, near: int) -> ErrorCase:
    beside = tuple(Neighbour("t", "a", 0.9, picture, heard) for _ in range(near))
    return ErrorCase("t", "a", "b", 0.9, i, beside, picture, "", heard)


def characters(cases: list[ErrorCase]) -> int:
    return sum(len(c.picture) + len(c.sound) + len(c.figure) + sum(len(n.picture) + len(n.sound) for n in c.neighbours) for c in cases)


def test_what_fits_is_kept_whole() -> None:
    cases = [case(i, images.data_uri(noise(900, 1200, i)), sound.playable(recording(0.5, i), 10.0), 3) for i in range(12)]
    assert gallery.afforded(cases, ROOM) == cases
    assert all(c.picture and c.sound for c in cases)


def test_errors_come_before_neighbours_and_pictures_before_sounds() -> None:
    heard = sound.playable(recording(10.0, 0), 10.0)
    drawn = sound.data_uri(recording(10.0, 0))
    kept = gallery.afforded([case(i, drawn, heard, 5) for i in range(25)], ROOM)
    assert characters(kept) <= ROOM
    assert all(c.picture and c.sound for c in kept)
    beside = [n for c in kept for n in c.neighbours]
    assert sum(bool(n.picture) for n in beside) > sum(bool(n.sound) for n in beside)
    assert not all(n.sound for n in beside)


def test_large_pictures_become_small_ones() -> None:
    for i, (height, width) in enumerate(((4000, 3000), (60, 4000), (1, 1), (28, 28))):
        uri = images.data_uri(noise(height, width, i))
        assert 0 < len(uri) <= gallery.MOST_PICTURE
        assert gallery.picture(uri)


@pytest.mark.parametrize(
    "uri", ["data:text/html;base64,AAAA", 'data:image/png;base64,AA"onerror=alert(1)', "https://x/y.png", "data:image/svg+xml;base64,AAAA"]
)
def test_what_is_no_picture_or_sound_is_left_out(uri: str) -> None:
    (kept,) = gallery.afforded([case(0, uri, uri, 1)], ROOM)
    assert characters([kept]) == 0
    assert gallery.picture(uri) == gallery.player(uri) == ""


def test_one_that_is_too_large_leaves_room_for_others() -> None:
    large = "data:image/png;base64," + base64.b64encode(bytes(gallery.MOST_PICTURE)).decode()
    small = "data:image/png;base64," + base64.b64encode(b"small").decode()
    kept = gallery.afforded([case(0, large, "", 0), case(1, small, "", 0)], ROOM)
    assert [c.picture for c in kept] == ["", small]
