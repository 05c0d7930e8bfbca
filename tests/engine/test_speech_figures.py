"""What is drawn of a wrong transcript."""

from __future__ import annotations

from warmstart.engine import speech_figures


def test_words_are_beside_each_other_and_escaped():
    drawn = speech_figures.figure("one two <b>", "one too <b> four")
    assert ">two</del>" in drawn
    assert ">too</ins>" in drawn
    assert ">four</ins>" in drawn
    assert "one" in drawn
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn
