import numpy as np
import pytest
import soundfile

import tiny_sound
from warmstart.core.errors import DataError
from warmstart.engine import sound_corpus


def _build(folder, place, **how):
    paths = sorted(str(p) for p in folder.rglob("*.wav"))
    return sound_corpus.build(paths, place=place, folder=folder, **({"rate": 8_000, "window": 8.0} | how))


def test_windows_cover_recordings_and_are_normalised(tmp_path):
    folder = tiny_sound.folder(tmp_path / "data", 6)
    corpus = _build(folder, tmp_path, window=0.2)
    whole = [len(soundfile.read(p)[0]) for p in sorted(folder.rglob("*.wav"))]
    for i, n in enumerate(whole):
        covered = corpus.lengths[corpus.recordings == i].sum()
        assert n - 800 < covered <= n  # a rest below a tenth of a second is dropped
    assert corpus.lengths.max() == 1_600
    for i in range(len(corpus.lengths)):
        wave = corpus.wave(i)
        assert abs(wave.mean()) < 1e-4
        assert abs(wave.std() - 1) < 1e-2
    assert np.array_equal(np.diff(corpus.starts) >= 0, np.ones(len(corpus.starts) - 1, bool))


def test_a_second_call_takes_what_the_first_wrote(tmp_path):
    folder = tiny_sound.folder(tmp_path / "data", 4)
    first = _build(folder, tmp_path)
    for path in folder.rglob("*.wav"):
        path.unlink()
    again = _build(tmp_path / "data", tmp_path)
    assert again.hash == first.hash
    assert np.array_equal(again.wave(3), first.wave(3))
    (tmp_path / sound_corpus.SAMPLES).write_bytes(b"\0" * 10)  # not whole: it is not trusted
    with pytest.raises(DataError, match="no recording"):
        _build(tmp_path / "data", tmp_path)


def test_bad_recordings_are_named_or_counted(tmp_path):
    folder = tiny_sound.folder(tmp_path / "data", 4)
    (folder / "up" / "bad.wav").write_bytes(b"nothing of use")
    soundfile.write(folder / "up" / "quiet.wav", np.zeros(8_000), 8_000)
    with pytest.raises(DataError, match=r"the data, row \d: .*bad.wav: not a sound file"):
        _build(folder, tmp_path)
    corpus = _build(folder, tmp_path, skip_bad=True)
    assert corpus.left_out == {"not a sound file that can be read": 1, "silence": 1}
    assert corpus.n_recordings == 4
    assert corpus.notes == ("1 silent recordings teach nothing and were passed over",)


def test_the_rate_is_that_of_most_but_no_more_than_16_khz(tmp_path):
    folder = tiny_sound.folder(tmp_path / "data", 4)
    paths = sorted(folder.rglob("*.wav"))
    soundfile.write(paths[0], np.zeros(100), 44_100)
    assert sound_corpus.rate_of(paths, folder=folder, given_rate=None) == 8_000
    assert sound_corpus.rate_of(paths[:1], folder=folder, given_rate=None) == 16_000
    assert sound_corpus.rate_of([np.zeros(500)], folder=folder, given_rate=11_025) == 11_025
