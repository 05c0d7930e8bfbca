"""Words and sounds to pre-train a body for sound on: spoken by espeak-ng and flite, or computed here; a folder for each class.

    python recipes/sound/corpus.py OUT [--renderings 40] [--seed 0]

Needs the programs espeak-ng and flite (Debian: apt install espeak-ng flite). Each rendering of a word has a voice, a pitch and a speed of
its own. The words of ``words.txt`` are no names of digits, so that spoken digits remain a test of what was never heard.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr
import synthetic

RATE = 16_000
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc", "en-029")
ESPEAK = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex"),
    *("Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario"),
    *("Michael", "Mike", "Storm", "adam", "anika", "aunty", "belinda", "benjamin", "boris", "caleb", "croak", "david", "ed", "edward"),
    *("edward2", "gustave", "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4", "linda", "max"),
    *("michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3"),
    *("travis", "victor", "whisper", "zac"),
)
FLITE = ("kal", "kal16", "awb", "rms", "slt")
SHARE_FLITE = 0.35
QUIET = 0.01
"""What is softer than this share of the loudest 10 ms is cut off before and behind a word."""


def spoken(word: str, random: np.random.Generator, place: Path) -> np.ndarray:
    """One rendering: (T,) at ``RATE``."""
    if random.random() < SHARE_FLITE:
        voice = str(random.choice(FLITE))
        pitch = {"slt": 170, "awb": 130}.get(voice, 105) * 2 ** random.uniform(-0.5, 0.6)
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={2 ** random.uniform(-0.5, 0.6):.2f}"]
        command += ["--setf", f"int_f0_target_mean={pitch:.0f}", "-t", word, "-o", str(place)]
    else:
        voice = f"{random.choice(ACCENTS)}+{random.choice(ESPEAK)}"
        command = ["espeak-ng", "-v", voice, "-p", str(random.integers(15, 90)), "-s", str(random.integers(100, 260))]
        command += ["-w", str(place), word]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples, rate = soundfile.read(place, dtype="float32")
    samples = soxr.resample(samples, rate, RATE) if rate != RATE else samples
    step = RATE // 100
    loud = np.array([np.abs(samples[i : i + step]).max() for i in range(0, len(samples), step)])
    heard = np.flatnonzero(loud > QUIET * loud.max())
    return samples[heard[0] * step : (heard[-1] + 1) * step]


def write(out: Path, label: str, index: int, samples: np.ndarray) -> None:
    """A FLAC file at three quarters of full scale."""
    soundfile.write(out / label / f"{index:03}.flac", 0.75 * samples / max(1e-6, np.abs(samples).max()), RATE, subtype="PCM_16")


def main() -> None:
    """Make the corpus; a class that is whole already is passed over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--renderings", type=int, default=40)
    parser.add_argument("--words", type=int, default=None, help="so many of the words")
    parser.add_argument("--sounds", action=argparse.BooleanOptionalAction, default=True, help="synthetic sounds too")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    words = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()[: given.words]

    def make(job: tuple[int, str]) -> None:
        number, label = job
        if (given.out / label / f"{given.renderings - 1:03}.flac").is_file():
            return
        random = np.random.default_rng((given.seed, number))
        (given.out / label).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            for i in range(given.renderings):
                samples = synthetic.sound(label, random) if label in synthetic.KINDS else spoken(label, random, Path(name) / "word.wav")
                write(given.out, label, i, samples)

    labels = [*words, *(synthetic.KINDS if given.sounds else ())]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, enumerate(labels)))


if __name__ == "__main__":
    main()
