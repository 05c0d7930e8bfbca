from pathlib import Path

import numpy as np
import pytest

import tiny_sound
from warmstart.core.errors import DamagedModel
from warmstart.engine import sound, spectra
from warmstart.engine.cepstra import Cepstra


def test_the_mel_bank_is_that_of_transformers():
    from transformers.audio_utils import mel_filter_bank

    ours = spectra.mel_bank(16_000, 512, 40, 8_000.0)
    theirs = mel_filter_bank(257, 40, 20.0, 8_000.0, 16_000, norm=None, mel_scale="htk").T
    assert ours.shape == (40, 257)
    assert np.abs(ours - theirs).max() < 1e-4


def test_a_tone_is_loudest_in_its_band():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    mel = spectra.log_mel(tone, rate=16_000, bands=40, high=8_000)
    assert mel.shape == (98, 40)
    loudest = int(mel[50].argmax())
    centre = spectra.mel_bank(16_000, 512, 40, 8_000.0)[loudest].argmax() * 16_000 / 512
    assert abs(centre - 1_000) < 100
    assert np.abs(spectra.log_mel(tone * 0.5, rate=16_000, bands=40, high=8_000) - mel - 2 * np.log(0.5)).max() < 1e-3


def test_silence_and_a_single_sample_have_finite_spectra():
    for samples in (np.zeros(1, np.float32), np.zeros(8_000, np.float32)):
        assert np.isfinite(spectra.mfcc(samples, rate=8_000, bands=40, coefficients=13, high=4_000)).all()


def test_cepstra_are_an_orthonormal_transform():
    mel = spectra.log_mel(tiny_sound.wave("up", np.random.default_rng(0)), rate=8_000, bands=24, high=4_000)
    all_of_them = spectra.mfcc(tiny_sound.wave("up", np.random.default_rng(0)), rate=8_000, bands=24, coefficients=24, high=4_000)
    assert np.allclose((all_of_them**2).sum(1), (mel**2).sum(1), rtol=1e-4)


def test_the_slope_of_a_line_is_its_slope():
    line = np.arange(20, dtype=np.float32)[:, None] * 3
    assert np.allclose(spectra.slopes(line)[2:-2], 3)
    assert spectra.slopes(line[:1]).tolist() == [[0.0]]


def _sounds(n=30):
    random = np.random.default_rng(0)
    waves = [(tiny_sound.wave(list(tiny_sound.CONTOURS)[i % 3], random), tiny_sound.RATE) for i in range(n)]
    return sound.read_all(waves, folder=Path())


def test_features_are_standardised_saved_and_loaded(tmp_path):
    sounds = _sounds()
    features = Cepstra()
    fitted = features.fit(sounds)
    assert np.allclose(fitted.mean(0), 0, atol=1e-4)
    assert np.allclose(fitted.std(0), 1, atol=1e-3)
    features.save(tmp_path)
    assert np.array_equal(Cepstra.load(tmp_path).transform(sounds), fitted)
    (tmp_path / "cepstra.json").unlink()
    with pytest.raises(DamagedModel, match=r"cepstra.json cannot be read"):
        Cepstra.load(tmp_path)


def test_features_tell_rising_from_falling_at_any_rate():
    from sklearn.linear_model import LogisticRegression

    sounds, labels = _sounds(60), [i % 3 for i in range(60)]
    features = Cepstra()
    fitted = features.fit(sounds[:30])
    model = LogisticRegression(C=0.1, max_iter=500).fit(fitted, labels[:30])
    assert model.score(features.transform(sounds[30:]), labels[30:]) > 0.9
    slower = [sound.Sound(sound.resampled(s.samples, s.rate, 11_025), 11_025, s.source_rate) for s in sounds[30:]]
    assert model.score(features.transform(slower), labels[30:]) > 0.85


def test_upsampled_sound_is_looked_at_below_its_own_limit():
    sounds = _sounds(6)
    features = Cepstra()
    features.fit(sounds)
    assert features._high == 4_000
