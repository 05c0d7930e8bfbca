import base64
import io

import numpy as np
import pytest
import soundfile

import tiny_sound
from warmstart.engine import sound
from warmstart.engine.sound import Limit


@pytest.fixture
def stereo(tmp_path):
    """A second of stereo at 44.1 kHz: 440 Hz on the left, silence on the right."""
    wave = np.stack([0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100), np.zeros(44_100)], 1).astype(np.float32)

    def write(suffix, subtype=None):
        path = tmp_path / f"a{suffix}"
        soundfile.write(path, wave, 44_100, subtype=subtype)
        return path

    return write


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_every_format_is_mixed_and_resampled(stereo, suffix):
    path = stereo(suffix)
    one = sound.read(path.name, folder=path.parent)
    assert one.problem == ""
    assert one.rate == 16_000
    assert one.source_rate == 44_100
    assert abs(len(one.samples) - 16_000) < 200
    spectrum = np.abs(np.fft.rfft(one.samples[:16_000], 16_000))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert abs(float(np.abs(one.samples[4_000:12_000]).max()) - 0.25) < 0.02  # the mean of the two channels


def test_a_damaged_mp3_is_named_and_its_decoder_says_nothing(stereo, capfd):
    path = stereo(".mp3")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(range(256)) * 4)
    assert sound.read(path.name, folder=path.parent).problem
    path.write_bytes(whole[: len(whole) // 50] + b"ID3" * 50)
    sound.read(path.name, folder=path.parent)
    assert capfd.readouterr().err == ""


def test_bytes_structs_and_arrays_are_the_same_sound(stereo, tmp_path):
    path = stereo(".wav", "FLOAT")
    samples, rate = soundfile.read(path, dtype="float32")
    forms = [
        str(path),
        path,
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        {"array": samples, "sampling_rate": rate, "path": "x"},
        (samples, rate),
        (samples.T, rate),
    ]
    found = sound.read_all(forms, folder=tmp_path)
    assert len({one.digest for one in found}) == 1
    bare = sound.read(samples, folder=tmp_path, given_rate=rate)
    assert bare.digest == found[0].digest


def test_whole_numbers_are_at_full_scale(tmp_path):
    one = sound.read((np.array([0, 16_384, -32_767] * 2_000, np.int16), 16_000), folder=tmp_path)
    assert one.samples[:3] == pytest.approx([0, 0.5, -1], abs=1e-4)


def _cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda s, p: "nowhere.wav", "no such file"),
        (lambda s, p: (p / "e.wav").write_bytes(b"") or "e.wav", "empty file"),
        (lambda s, p: (p / "t.wav").write_text("hello" * 50) and "t.wav", "not a sound file that can be read"),
        (lambda s, p: _cut(s(".wav"), 0.5), "truncated sound file"),
        (lambda s, p: _cut(s(".aiff"), 0.5), "truncated sound file"),
        (lambda s, p: _cut(s(".au"), 0.5), "truncated sound file"),
        (lambda s, p: _cut(s(".flac"), 0.5), "damaged or truncated sound file"),
        (lambda s, p: _cut(s(".ogg"), 0.3), "damaged or truncated sound file"),
        (lambda s, p: soundfile.write(p / "z.wav", np.zeros(0), 8_000) or "z.wav", "sound file without samples"),
        (lambda s, p: None, "missing sound"),
        (lambda s, p: {"path": None, "bytes": None}, "missing sound"),
        (lambda s, p: np.zeros(800, np.float32), "samples without a rate"),
        (lambda s, p: (np.zeros(0), 8_000), "no samples"),
        (lambda s, p: (np.full(800, np.nan), 8_000), "samples that are not finite"),
        (lambda s, p: (np.zeros((2, 3, 4)), 8_000), "samples of 3 dimensions"),
        (lambda s, p: object(), "neither a path nor samples (object)"),
        (lambda s, p: p, "a folder, not a sound file"),
        (lambda s, p: "a\0b.wav", "a file that cannot be opened (no valid path)"),
    ],
)
def test_what_is_wrong_is_told_apart(stereo, tmp_path, make, problem):
    one = sound.read(make(stereo, tmp_path), folder=tmp_path)
    assert one.problem == problem
    assert len(one.samples) == 0


def test_channels_that_take_each_other_away_are_not_silent(tmp_path):
    wave = np.sin(np.arange(8_000) / 5).astype(np.float32)
    one = sound.read((np.stack([wave, -wave], 1), 16_000), folder=tmp_path)
    assert not one.silent
    assert np.array_equal(one.samples, wave)


def test_a_wav_from_a_pipe_has_no_length_and_is_whole(stereo):
    path = stereo(".wav")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    one = sound.read(bytes(content), folder=path.parent)
    assert one.problem == ""
    assert abs(one.seconds - 1) < 0.01


def test_long_recordings_are_cut_to_windows_spread_over_them():
    limit = Limit(seconds=10, window=2)
    stretches = limit.stretches(100 * 1_000, 1_000)
    assert len(stretches) == 5
    assert all(b - a == 2_000 for a, b in stretches)
    assert stretches[0][0] == 0
    assert stretches[-1][1] == 100_000
    assert limit.stretches(9_000, 1_000) == [(0, 9_000)]
    assert Limit(seconds=2, window=5).stretches(10_000, 1_000) == [(4_000, 6_000)]  # a single window lies in the middle


def test_windows_of_a_file_are_those_of_its_samples(tmp_path):
    ramp = np.linspace(-0.9, 0.9, 16_000 * 4).astype(np.float32)
    soundfile.write(tmp_path / "r.flac", ramp, 16_000)
    limit = Limit(seconds=1, window=0.25)
    read, given = sound.read("r.flac", folder=tmp_path, limit=limit), sound.read((ramp, 16_000), folder=tmp_path, limit=limit)
    assert len(read.samples) == 16_000
    assert read.seconds == 4.0
    assert np.abs(read.samples - given.samples).max() < 1e-4


def test_silence_clipping_and_cuts_are_noted():
    loud = np.clip(3 * tiny_sound.wave("up", np.random.default_rng(0), rate=16_000), -0.3, 0.3) / 0.3
    given = [(np.zeros(16_000), 16_000), (loud, 16_000), (np.ones(32_000) * 0.1, 16_000), (np.ones(8_000) * 0.1, 8_000), None]
    limit = Limit(seconds=1, window=0.5)
    found = sound.notes(sound.read_all(given, folder=__import__("pathlib").Path(), limit=limit), limit)
    assert found == [
        "1 of 4 recordings are silent",
        "1 of 4 recordings are clipped (at full scale for 1 sample in 1,000 or more)",
        "1 of 4 recordings are longer than 1 s: of each, windows of 0.5 s spread over it were used",
        "recordings have 2 rates, from 8,000 to 16,000 Hz",
    ]


def test_a_spectrogram_is_a_small_picture(tmp_path):
    from PIL import Image

    uri = sound.data_uri(sound.read((tiny_sound.wave("up", np.random.default_rng(0)), 8_000), folder=tmp_path))
    head, _, body = uri.partition(",")
    image = Image.open(io.BytesIO(__import__("base64").b64decode(body)))
    assert head == "data:image/png;base64"
    assert image.size == sound.PICTURE
    assert len(uri) < 12_000


@pytest.mark.parametrize(("rate", "played"), [(16_000, 16_000), (48_000, 16_000), (8_000, 8_000)])
def test_the_beginning_can_be_played(rate, played):
    tone = sound.Sound(np.sin(np.arange(rate * 20) / 10).astype(np.float32), rate, rate, 20.0)
    uri = sound.playable(tone, 3.0)
    samples, found = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert found == played
    assert abs(len(samples) / found - 3) < 0.2
    assert len(uri) < 15_000
    assert sound.playable(sound.Sound(np.zeros(0, np.float32), 16_000, problem="no such file"), 3.0) == ""


def test_pieces_are_cut_in_pauses_and_lose_nothing():
    random = np.random.default_rng(0)
    loud, pause = random.normal(0, 0.3, 1_000), np.zeros(200)
    samples = np.concatenate([part for _ in range(20) for part in (loud, pause)]).astype(np.float32)
    found = sound.pieces(sound.Sound(samples, 1_000, 1_000, 24.0), 5.0)
    assert np.array_equal(np.concatenate([piece.samples for piece in found]), samples)
    assert all(piece.used <= 5 for piece in found)
    assert all(np.abs(piece.samples[-20:]).max() == 0 for piece in found[:-1])
    assert len({piece.digest for piece in found}) > 1
    assert len(sound.pieces(found[0], 30.0)) == 1
