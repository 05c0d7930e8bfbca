"""What a person sees and hears of a wrong transcript: both texts, word beside word, and the sound."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

from markupsafe import escape

from warmstart.engine import sound, transcripts
from warmstart.engine.sound import Sound

SECONDS = 12.0
"""Of a recording that can be played in a report; an MP3 of speech takes about 4 kB a second."""
MOST_WORDS = 60


def figure(one: Sound, truth: str, answer: str) -> str:
    """HTML of one error: words that were left out or put in are marked, and the recording can be played."""
    pairs = transcripts.alignment(truth.split(), answer.split())
    words = " ".join(_words(pairs[:MOST_WORDS])) + (" …" if len(pairs) > MOST_WORDS else "")
    uri = playable(one)
    player = f'<audio controls preload="none" src="{uri}"></audio>' if uri else ""
    picture = f'<img class="picture" alt="" src="{sound.data_uri(one)}">' if uri else ""
    return f'{picture}<p class="aligned" dir="auto">{words}</p>{player}'


def _words(pairs: list[tuple[str | None, str | None]]) -> Iterator[str]:
    for truth, answer in pairs:
        if truth == answer:
            yield str(escape(truth))
            continue
        if truth is not None:
            yield f'<del title="said, not recognised">{escape(truth)}</del>'
        if answer is not None:
            yield f'<ins title="recognised, not said">{escape(answer)}</ins>'


def playable(one: Sound) -> str:
    """The beginning of a recording as an MP3 in a data URI; empty where it cannot be made."""
    import soundfile

    if one.problem:
        return ""
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, one.samples[: int(SECONDS * one.rate)], one.rate, format="MP3", subtype="MPEG_LAYER_III")
    except (soundfile.LibsndfileError, ValueError):  # a rate that MP3 does not know
        return ""
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
