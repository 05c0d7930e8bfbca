"""Counts and the errors of others, as sentences tell them."""

from __future__ import annotations

from warmstart.core.words import counted, shortened


def test_one_is_no_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
    assert [counted(n, "box", "boxes") for n in (1, 2)] == ["1 box", "2 boxes"]


def test_long_texts_end_at_a_sentence_or_say_that_they_go_on() -> None:
    assert shortened(" a\n b ") == "a b"
    first = "This is disallowed, since it runs code that lies in the file and comes from who knows where."
    assert shortened(f"{first} If you trust {'the source ' * 30}") == first
    long = shortened("word " * 100)
    assert long.endswith("word ...")
    assert len(long) <= 200
    assert shortened("w" * 300) == "w" * 196 + " ..."
