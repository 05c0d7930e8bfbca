"""Sounds to learn from, batch by batch: log-mel frames made once, augmented as whole batches, the same for any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core import registry
from warmstart.core.errors import BadOption, DataError
from warmstart.engine import aside, bodies, examples, extraction, frames, sound, splits, store
from warmstart.engine.aside import Kept, Shed
from warmstart.engine.frames import FLOOR, Frames
from warmstart.engine.learner import Corpus, Picture, Setting
from warmstart.engine.order import ByLength
from warmstart.engine.seeds import generator, seeded
from warmstart.engine.sound_views import NUMBERS, SoundAugmentation

WIDTH, DEPTH = {"tiny": 128, "small": 192, "base": 320}, {"tiny": 3, "small": 5, "base": 8}
STEM = {"tiny": (16, 32, 48), "small": (24, 48, 64), "base": (32, 64, 96)}
FRAC_HELD, HELD_MOST = 0.1, 2_000
FRAMES_PER_SECOND = 100
SHOWN = 6
CROPPED = 31
"""Which of a view's random numbers says what stretch of a long recording is seen."""


@dataclass(frozen=True)
class Heard:
    """``nats[i]`` are frames (N, M) in float16, put aside where they are many; ``train`` and ``held`` are rows, ``labels`` (rows,) indices
    into ``names``."""

    nats: list[Kept]
    train: Tensor
    held: Tensor
    corpus: Corpus
    names: tuple[str, ...]
    labels: Tensor
    how: dict[str, Any]


class SoundStream:
    """Sounds as ``warmstart.engine.streams.Stream`` wants them. ``settings`` are those that ``decide`` gave, and ``augment``."""

    unit, looked_at = "recordings", 256

    def __init__(self, setting: Setting, heard: Heard, settings: Mapping[str, Any]) -> None:
        self.setting, self.settings, self._heard = setting, settings, heard
        self.corpus, self.names, self.train, self.n_held = heard.corpus, heard.names, heard.train, len(heard.held)
        self.labels: Tensor | None = heard.labels
        self.held_labels: Tensor | None = heard.labels[heard.held]
        self.augmentation = SoundAugmentation(**settings["augment"])
        lengths = np.minimum([x.shape[0] for x in heard.nats], settings["longest"])
        self._order = ByLength(heard.train.numpy(), lengths, settings["batch"], seed=setting.seed)

    @property
    def bytes(self) -> int:
        """Memory that the frames take."""
        return sum(x.nbytes for x in self._heard.nats if isinstance(x, np.ndarray))

    def rows(self, step: int) -> Tensor:
        """Rows of the whole batch of a step, (B,)."""
        return self._order(step)

    def views(self, step: int, which: int, *, shift: int = 0) -> dict[str, Tensor]:
        """View number ``which`` of this process's sounds of a step, or of those ``shift`` places further in the whole batch."""
        batch = self._viewed(self.rows(step), generator(self.setting.seed, step, which))
        return self._placed({name: x.roll(-shift, 0)[self.setting.rank :: self.setting.world] for name, x in batch.items()})

    def known(self, rows: Tensor) -> dict[str, Tensor]:
        """These rows as they are, of long ones the middle."""
        cut = [self._cut(i, 0.5) for i in rows.tolist()]
        return self._placed(frames.collated([frames.scaled(x.astype(np.float32)) for x in cut]))

    def held(self, start: int, stop: int) -> dict[str, Tensor]:
        """Held-out sounds as they are."""
        return self.known(self._heard.held[start:stop])

    def held_views(self, start: int, stop: int, which: int) -> dict[str, Tensor]:
        """One view of held-out sounds, always the same."""
        return self._placed(self._viewed(self._heard.held[start:stop], generator(self.setting.seed, start, 8 + which)))

    def body(self) -> nn.Module:
        """The body on the CPU: from the folder to start from, else with fresh weights that follow from the seed."""
        if self.setting.start is not None:
            return store.load_body(self.setting.start).train()
        with seeded(self.setting.seed):
            return bodies.build(self.settings["body"]).train()

    def pictures(self) -> Sequence[Picture]:
        """A row of spectrograms as they are, and below them two views of each; high notes above."""
        rows = self.rows(0)[:SHOWN]
        lines = [self.known(rows), *(self._viewed(rows, generator(self.setting.seed, 0, which)) for which in (0, 1))]
        found = [line[frames.NAME].cpu() for line in lines]
        n = max(x.shape[1] for x in found)
        wide = [nn.functional.pad(x, (0, 0, 0, n - x.shape[1]), value=-2.0).transpose(1, 2).flip(1) for x in found]  # (B, M, n)
        grid = torch.cat([torch.cat(list(x), dim=1) for x in wide])
        return [Picture("log-mel spectrograms (top) and two random views of each", (grid + 2) / 4)]

    def save(self, body: nn.Module, folder: Path) -> None:
        """Write the body and how sound becomes its frames."""
        store.save_transformers(body, folder)
        store.write_json(folder / frames.FILE, self._heard.how)

    def _viewed(self, rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        drawn = torch.rand(len(rows), NUMBERS, generator=random)
        cut = [self._cut(i, float(u)) for i, u in zip(rows.tolist(), drawn[:, CROPPED], strict=True)]
        batch = frames.collated([x.astype(np.float32) + FLOOR for x in cut])
        x, lengths = self.augmentation(batch[frames.NAME] - FLOOR, batch[frames.MASK].sum(1), drawn, random)
        return {frames.NAME: x, frames.MASK: (torch.arange(x.shape[1]) < lengths[:, None]).long()}

    def _cut(self, row: int, u: float) -> NDArray[np.float16]:
        """The frames of a recording, of a long one a stretch."""
        x, longest = self._heard.nats[row], int(self.settings["longest"])
        length = x.shape[0]
        first = int(u * (length - longest + 1)) if length > longest else 0
        return aside.opened(aside.part(x, first, min(length, first + longest)))

    def _placed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.to(self.setting.device) for name, x in batch.items()}


def read(setting: Setting) -> Heard:
    """Every recording as frames, its label, and which are held out: ``setting.validation``, else a stratified tenth.

    Raises:
        InputError: The source, a recording or a label is wrong, there are too few, or the body to start from takes no frames.
    """
    how = _frames(setting)
    first = _labelled(setting.data, setting)
    inputs, targets = first.inputs, [str(t) for t in first.targets or []]
    corpus = Corpus(first.source, "", {}, first.left_out, tuple(first.notes))
    names = tuple(sorted(set(targets)))
    known = {name: i for i, name in enumerate(names)}
    if setting.validation is not None:
        second = _labelled(setting.validation, setting)
        inputs, others = [*inputs, *second.inputs], [str(t) for t in second.targets or []]
        unknown = sorted(set(others) - known.keys())
        if unknown:
            raise DataError(f"held-out recordings have labels that no other has: {', '.join(unknown[:5])}", do="give more of each label")
        train = np.arange(len(targets))
        held = len(targets) + np.random.default_rng(setting.seed).permutation(len(others))[:HELD_MOST]
        targets += others
    else:
        if len(inputs) < 4:
            raise DataError(f"{first.source} has {len(inputs)} recordings", "at least four, of which some are held out", "give more")
        n_held = min(max(2, int(FRAC_HELD * len(inputs))), HELD_MOST)
        train, held = splits.hold_out(np.array([known[t] for t in targets]), None, n_held / len(inputs), setting.seed)
        held = np.random.default_rng(setting.seed).permutation(held)
    digest = hashlib.blake2b(digest_size=16)
    for value, target in zip(inputs, targets, strict=True):
        digest.update(value[0].digest + target.encode("utf-8", "surrogatepass"))
    items = {"recordings": len(train), "held-out recordings": len(held)}
    corpus = Corpus(corpus.source, digest.hexdigest(), items, corpus.left_out, corpus.notes)
    shed = Shed()
    nats = [shed.keep(how.nats(value[0]).astype(np.float16)) for value in inputs]
    labels = torch.tensor([known[t] for t in targets])
    return Heard(nats, torch.from_numpy(train), torch.from_numpy(held), corpus, names, labels, how.settings)


def decide(options: Any, setting: Setting, heard: Heard, size: str) -> dict[str, Any]:
    """Settings that decide the body and how much of a recording it sees at once."""
    if options.seconds <= 0:
        raise BadOption(f"seconds = {options.seconds}", "more than 0", "correct it")
    found: dict[str, Any] = {"modality": "audio", "body": None, "longest": max(8, round(options.seconds * FRAMES_PER_SECOND))}
    if setting.start is None:
        width = options.width or WIDTH[size]
        stem = STEM[size] if options.width is None else [max(4, width // 8), max(8, width // 4), max(12, width // 3)]
        shape = {"bands": heard.how["frames"]["bands"], "stem": list(stem), "width": width, "depth": options.depth or DEPTH[size]}
        found["body"] = {"model_type": "warmstart-soundnet", **shape}
    return found


def views(name: str) -> SoundAugmentation:
    """The augmentation that is called ``none``, ``light`` or ``strong``."""
    if name == "strong":
        return SoundAugmentation(speed=1.3, throat=1.12, colour=1.5, echo=0.5, noise=0.8, narrow=0.5)
    return SoundAugmentation(speed=1, colour=0, noise=0, hidden=0) if name == "none" else SoundAugmentation()


def _frames(setting: Setting) -> Frames:
    if setting.start is None:
        return Frames(setting.folder, frames.settings(rate=sound.RATE))
    found = extraction.of(setting.start)
    if not isinstance(found, Frames):
        raise BadOption(f"{setting.start} takes no log-mel frames", "a body for sound that this objective made", "leave out --from")
    return found


def _labelled(source: Any, setting: Setting) -> examples.Examples:
    part = registry.create("modalities", "audio", options=dict(setting.modality_options))
    task = registry.create("tasks", "classification")
    return examples.read_examples(
        source, modality=part, task=task, given=setting.column, group=None, skip_bad=setting.skip_bad, labelled=True, body=setting.start
    )
