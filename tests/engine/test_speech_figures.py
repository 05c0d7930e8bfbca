"""What is drawn of a wrong transcript."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile

from warmstart.engine import speech_figures
from warmstart.engine.sound import Sound

TONE = Sound(np.sin(np.arange(16_000 * 20) / 10).astype(np.float32), 16_000, 16_000, 20.0)


def test_words_are_beside_each_other_and_escaped():
    drawn = speech_figures.figure(TONE, "one two <b>", "one too <b> four")
    assert ">two</del>" in drawn
    assert ">too</ins>" in drawn
    assert ">four</ins>" in drawn
    assert "one" in drawn
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn


def test_the_beginning_can_be_played():
    uri = speech_figures.playable(TONE)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert rate == 16_000
    assert abs(len(samples) / rate - speech_figures.SECONDS) < 0.2
    assert len(uri) < 120_000
    assert speech_figures.playable(Sound(np.zeros(0, np.float32), 16_000, problem="no such file")) == ""
