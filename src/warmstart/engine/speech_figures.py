"""What a person sees of a wrong transcript: both texts, word beside word."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import escape

from warmstart.engine import transcripts

MOST_WORDS = 60


def figure(truth: str, answer: str) -> str:
    """HTML of one error: words that were left out or put in are marked."""
    pairs = transcripts.alignment(truth.split(), answer.split())
    words = " ".join(_words(pairs[:MOST_WORDS])) + (" …" if len(pairs) > MOST_WORDS else "")
    return f'<p class="aligned" dir="auto">{words}</p>'


def _words(pairs: list[tuple[str | None, str | None]]) -> Iterator[str]:
    for truth, answer in pairs:
        if truth == answer:
            yield str(escape(truth))
            continue
        if truth is not None:
            yield f'<del title="said, not recognised">{escape(truth)}</del>'
        if answer is not None:
            yield f'<ins title="recognised, not said">{escape(answer)}</ins>'
