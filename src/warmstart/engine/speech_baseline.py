"""Speech recognition without any pre-trained body: log-mel frames, a small convolutional network and CTC, from scratch.

What a body has to beat, and what is used where there is none. Shapes: N recordings, F frames of 30 ms, M mel bands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core.protocols import Input
from warmstart.core.words import counted
from warmstart.engine import batches, fit, sound, spectra, store, transcripts
from warmstart.engine.aside import Kept, Shed, opened
from warmstart.engine.ctc_head import Head
from warmstart.engine.job import Fitted, Job, Plan
from warmstart.engine.master_weights import Group
from warmstart.engine.seeds import seeded
from warmstart.engine.sound import Sound
from warmstart.engine.workbench import Workbench

BANDS, STACKED = 40, 3
"""Three frames of 10 ms side by side are one of the network."""
ROWS, LR, WEIGHT_DECAY = 16, 3e-3, 0.01
STEPS, FEWEST_EPOCHS, MOST_EPOCHS, LEAST_EPOCHS = 2_500, 12, 100, 4
TIMED, OVERHEAD = 4, 1.3
"""Steps that are timed, of which the quickest counts, and what the optimiser and the masks add."""
PREDICT_FRAMES, ANSWERED = 16_384, 4
"""Frames of a batch, and recordings on which answering is timed."""
FLOOR = 0.5
"""Bands are divided by no less than this, or silence would be blown up to speech."""
MASKED_BANDS, MASKED_FRAMES = 8, 4
"""One stretch of up to so many bands, and two of up to so many frames, are hidden in training (SpecAugment, Park et al. 2019)."""
FILE, SETTINGS = "classic.safetensors", "classic.json"
TASK = "speech_recognition"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """The network with its front end: it looks at sound up to ``high`` Hz, at ``rate`` samples per second."""

    head: Head
    rate: int
    high: float

    def logits(self, values: Sequence[Input], *, quiet: bool = True) -> Floats:
        """Answers in compact form, (N, 1 + L); see ``transcripts.packed``."""
        shed = Shed()
        return self.answers([shed.keep(features(value[0], self.rate, self.high)) for value in values])

    @torch.inference_mode()
    def answers(self, frames: Sequence[Kept]) -> Floats:
        """Of features (F, 3 M) each."""
        found: list[tuple[NDArray[np.int64], float]] = [(np.zeros(0, np.int64), 0.0)] * len(frames)
        for part, _ in batches.uniform([f.shape[0] for f in frames], tokens=PREDICT_FRAMES):
            state, mask = together([opened(frames[int(i)]) for i in part])
            for i, row in zip(part, self.head.compact(self.head.eval()([state], {"state_masks": [mask]})), strict=True):
                found[int(i)] = (row[1:][row[1:] >= 0].astype(np.int64), float(row[0]))
        return transcripts.packed(found)

    def save(self, folder: Path, *, labels: Sequence[str], temperature: float) -> None:
        """Write ``classic.safetensors`` and ``classic.json``."""
        store.write_tensors(folder / FILE, self.head.state_dict())
        store.write_json(folder / SETTINGS, {"task": TASK, "head": self.head.settings, "rate": self.rate, "high": self.high})


def load(folder: Path) -> Baseline:
    """What ``Baseline.save`` wrote."""
    how = store.read_object(folder / SETTINGS)
    head = Head(how["head"])
    head.load_state_dict(store.read_tensors(folder / FILE))
    return Baseline(head.eval(), int(how["rate"]), float(how["high"]))


def features(one: Sound, rate: int, high: float) -> Floats:
    """Log-mel frames with each band's mean of the recording taken away, three side by side: (F, 3 M)."""
    mel = spectra.log_mel(sound.resampled(one.samples, one.rate, rate), rate=rate, bands=BANDS, high=high)
    mel = (mel - mel.mean(0)) / np.maximum(mel.std(0), FLOOR)
    mel = np.pad(mel, ((0, -len(mel) % STACKED), (0, 0)))
    return mel.reshape(-1, STACKED * BANDS)


def together(frames: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """Ragged features padded to the longest (B, F, 3 M), and which frames are real (B, F)."""
    longest = max(len(f) for f in frames)
    state, mask = np.zeros((len(frames), longest, STACKED * BANDS), np.float32), np.zeros((len(frames), longest), np.float32)
    for i, f in enumerate(frames):
        state[i, : len(f)], mask[i, : len(f)] = f, 1
    return torch.from_numpy(state), torch.from_numpy(mask)


def epochs(n_train: int) -> float:
    """Passes over the training rows: CTC says nothing but blanks for the first few hundred steps."""
    return float(np.clip(STEPS * ROWS / max(1, n_train), FEWEST_EPOCHS, MOST_EPOCHS))


def plan(bench: Workbench, train: NDArray[np.int64], seconds: float, *, passes: float | None = None) -> Plan | None:
    """As many passes as there is time for, of ``passes`` or (None) those that the number of rows asks for."""
    wanted = epochs(len(train)) if passes is None else passes
    each = _seconds_per_row(bench)
    affordable = min(wanted, seconds / max(1e-9, each * len(train)) - 0.5)
    if affordable < min(wanted, LEAST_EPOCHS):
        return None
    settings = {"epochs": round(affordable, 3), "most": wanted}
    return Plan(settings, (affordable + 0.5) * each * len(train), shortened=affordable < wanted)


def run(bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job, *, decoding: dict[str, Any]) -> Fitted:
    """Train on rows of the bench and answer for the held ones; ``decoding`` is part of the settings of a ``ctc_head.Head``.

    Raises:
        CutRefused: The transcripts are longer than the recordings can say.
    """
    rate, high = _band([bench.inputs[int(i)][0] for i in train])
    shed = Shed()
    frames = {int(i): shed.keep(features(bench.inputs[int(i)][0], rate, high)) for i in np.concatenate([train, held])}
    head = _fresh(bench, train, frames, decoding, job.seed)
    lengths = np.array([frames[int(i)].shape[0] for i in train])
    how = fit.Schedule(epochs=job.settings["epochs"], most=job.settings["most"], tokens=ROWS * int(lengths.max()), rows=ROWS)
    if not job.pace.follow:
        some = [opened(frames[int(i)]) for i in train[:ANSWERED]]
        job.pace.after = len(held) * _answer_seconds(bench, Baseline(head.eval(), rate, high), some)
    head.train()

    def loss_of(positions: NDArray[np.int64]) -> Tensor:
        bench.check_time()
        rows = train[positions]
        state, mask = together([opened(frames[int(i)]) for i in rows])
        return head.loss(head([hidden(state)], {"state_masks": [mask]}), [bench.targets[int(i)] for i in rows], 0.0)

    done = fit.train(
        loss_of,
        [Group(tuple(head.parameters()), LR, WEIGHT_DECAY)],
        stream=fit.order(lengths, how, (bench.seed, job.seed)),
        schedule=how,
        seed=job.seed,
        pace=job.pace,
        checkpoint=job.checkpoint,
        progress=job.progress,
    )
    found = Baseline(head.eval(), rate, high)
    answers = found.answers([frames[int(i)] for i in held])
    return Fitted(found, answers, sum(p.numel() for p in head.parameters()), counted(done.steps, "step"), dict(job.settings))


def hidden(state: Tensor) -> Tensor:
    """Features with stretches of bands and of frames set to their mean, 0: drawn anew for every batch."""
    state = state.clone()
    bands = state.view(*state.shape[:2], STACKED, BANDS)
    start, width = int(torch.randint(BANDS - MASKED_BANDS, ())), int(torch.randint(MASKED_BANDS + 1, ()))
    bands[..., start : start + width] = 0
    for _ in range(2):
        start, width = int(torch.randint(max(1, state.shape[1] - MASKED_FRAMES), ())), int(torch.randint(MASKED_FRAMES + 1, ()))
        state[:, start : start + width] = 0
    return state


def _fresh(bench: Workbench, train: NDArray[np.int64], frames: Mapping[int, Kept], decoding: dict[str, Any], seed: int) -> Head:
    from warmstart.engine import ctc_head

    with seeded(seed):
        return ctc_head.convolutional(
            [(0, STACKED * BANDS)],
            bench.labels,
            [bench.targets[int(i)] for i in train],
            np.array([float(frames[int(i)].shape[0]) for i in train]),
            decoding=decoding,
        )


def _band(sounds: Sequence[Sound]) -> tuple[int, float]:
    """The rate of the recordings, and half of the rate that most were recorded at."""
    rate = int(np.median([one.rate for one in sounds]))
    known = [one.source_rate for one in sounds if one.source_rate] or [rate]
    return rate, min(rate, float(np.median(known))) / 2


def _answer_seconds(bench: Workbench, baseline: Baseline, frames: list[Floats]) -> float:
    """Of one recording, measured on these."""
    if "classic_answer" not in bench.measured:
        began = time.perf_counter()
        baseline.answers(frames)
        bench.measured["classic_answer"] = OVERHEAD * (time.perf_counter() - began) / len(frames)
    return bench.measured["classic_answer"]


def _seconds_per_row(bench: Workbench) -> float:
    """Of one pass of training, measured once."""
    if "speech_baseline" not in bench.measured:
        rows = np.random.default_rng(bench.seed).permutation(len(bench.inputs))[:ROWS]
        rate, high = _band([bench.inputs[int(i)][0] for i in rows])
        frames = {int(i): features(bench.inputs[int(i)][0], rate, high) for i in rows}
        head = _fresh(bench, rows, frames, {"beam": 1, "language": None, "weight": 0.0, "reward": 0.0}, bench.seed)
        taken = []
        for _ in range(TIMED):
            began = time.perf_counter()
            state, mask = together(list(frames.values()))
            head.loss(head([state], {"state_masks": [mask]}), [bench.targets[i] for i in frames], 0.0).backward()  # type: ignore[no-untyped-call]
            taken.append(time.perf_counter() - began)
        bench.measured["speech_baseline"] = OVERHEAD * min(taken) / len(rows)
    return bench.measured["speech_baseline"]
