"""What of pictures, sounds and drawings of errors goes into a report, so that the page stays below its size whatever the data are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from markupsafe import Markup

from warmstart.core.report import ErrorCase, Neighbour

MOST_PICTURE, MOST_SOUND, MOST_FIGURE = 14_000, 60_000, 120_000
"""Characters of one."""

_PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+")
_SOUND = re.compile(r"data:audio/(mpeg|ogg|flac|wav);base64,[A-Za-z0-9+/=]+")


def afforded(cases: Sequence[ErrorCase], room: int) -> list[ErrorCase]:
    """The cases with what fits into ``room`` characters: pictures and drawings of the errors first, then their sounds, then pictures of the
    neighbours, then sounds of those. What is no data URI of its kind, or too large, is left out."""
    left = room

    def fitting(text: str, valid: bool) -> str:
        nonlocal left
        if not valid or len(text) > left:
            return ""
        left -= len(text)
        return text

    def beside(change: Callable[[Neighbour], Neighbour]) -> list[ErrorCase]:
        return [replace(case, neighbours=tuple(map(change, case.neighbours))) for case in cases]

    cases = [replace(c, picture=fitting(c.picture, is_picture(c.picture))) for c in cases]
    cases = [replace(c, figure=fitting(c.figure, len(c.figure) <= MOST_FIGURE)) for c in cases]
    cases = [replace(c, sound=fitting(c.sound, is_sound(c.sound))) for c in cases]
    cases = beside(lambda n: replace(n, picture=fitting(n.picture, is_picture(n.picture))))
    return beside(lambda n: replace(n, sound=fitting(n.sound, is_sound(n.sound))))


def picture(uri: str) -> Markup:
    """An image element for a data URI that was ``afforded``; nothing for an empty one."""
    return Markup(f'<img class="picture" alt="" src="{uri}">' if _PICTURE.fullmatch(uri) else "")  # noqa: S704 - only letters of base64


def player(uri: str) -> Markup:
    """What plays a data URI that was ``afforded``; nothing for an empty one."""
    return Markup(f'<audio controls preload="none" src="{uri}"></audio>' if _SOUND.fullmatch(uri) else "")  # noqa: S704 - as above


def is_picture(uri: str) -> bool:
    """Whether it is a data URI of an image that is small enough for a page."""
    return len(uri) <= MOST_PICTURE and _PICTURE.fullmatch(uri) is not None


def is_sound(uri: str) -> bool:
    """Whether it is a data URI of sound that is small enough for a page."""
    return len(uri) <= MOST_SOUND and _SOUND.fullmatch(uri) is not None
