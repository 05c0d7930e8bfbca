import numpy as np

import tiny_sound
from warmstart.engine import speech_targets
from warmstart.engine.speech_targets import Frames


def test_k_means_finds_separate_clusters_and_repeats_itself():
    random = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    truth = random.integers(0, 4, 400)
    x = centres[truth] + random.standard_normal((400, 2)).astype(np.float32)
    book = speech_targets.learned(x, "clusters", codes=4, seed=1)
    codes = book(x)
    assert all(len(set(codes[truth == k])) == 1 for k in range(4))
    assert len(set(codes)) == 4
    again = speech_targets.learned(x, "clusters", codes=4, seed=1)
    assert np.array_equal(book.codes, again.codes)


def test_fewer_frames_than_codes_and_equal_frames():
    assert len(speech_targets.learned(np.ones((3, 5), np.float32), "clusters", codes=8, seed=0).codes) == 3


def test_random_projection_depends_on_the_seed_alone():
    x = np.random.default_rng(0).standard_normal((500, 80)).astype(np.float32)
    a, b, c = (speech_targets.learned(x, "random_projection", codes=32, seed=seed)(x) for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert speech_targets.perplexity(a, 32) > 4


def test_frames_lie_where_the_body_has_them():
    wave = np.zeros(8_000, np.float32)
    wave[4_000:] = tiny_sound.wave("flat", np.random.default_rng(0), seconds=0.5)
    frames = Frames(rate=8_000, stride=160, field=200, high=4_000)
    features = frames.features(wave, "random_projection", 49)
    loud = features[:, :40].max(1)
    assert features.shape == (49, 80)
    assert loud[:23].max() < loud[26:].min()  # sound begins after half of the frames
    assert frames.features(wave, "clusters", 49).shape == (49, 39)


def test_perplexity_counts_what_is_in_use():
    assert abs(speech_targets.perplexity(np.arange(8), 16) - 8) < 1e-9
    assert speech_targets.perplexity(np.zeros(5, np.int64), 16) == 1
