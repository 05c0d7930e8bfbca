"""Numbers and errors of others, as sentences tell them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 step``, ``2,000 steps``; ``plural`` where an s at the end does not make it."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def shortened(text: str, most: int = 200) -> str:
    """White space made single, and of a long text whole sentences of at most ``most`` characters, or whole words and an ellipsis."""
    plain = " ".join(text.split())
    if len(plain) <= most:
        return plain
    head = plain[:most]
    end = max(head.rfind(f"{mark} ") for mark in ".?!")
    return head[: end + 1] if end > most // 4 else f"{head[: most - 4].rpartition(' ')[0] or head[: most - 4]} ..."
