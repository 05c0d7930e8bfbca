"""The learner of the objective ``wav2vec``: windows of sound, their masks and targets, and a body that is saved as transformers' own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import BadOption, DataError
from warmstart.core.report import Metric
from warmstart.engine import learner, spectra, speech_targets, statistics, store, wav2vec
from warmstart.engine.learner import Group, Phase, Picture, Setting
from warmstart.engine.seeds import seeded
from warmstart.engine.sound_corpus import SoundCorpus
from warmstart.engine.speech_targets import Codebook, Frames
from warmstart.engine.wav2vec import Masked, MaskedBody

CHECKED_SECONDS, MEASURED_SECONDS = 60.0, 300.0
"""Sound that a validation, and the last measurement, look at."""
WEIGHT_DECAY_FREE = ("bias", "norm", "masked_spec_embed")
GROUPS, QUANTIZED = 2, 64
PICTURES = 3
FEWEST_ROWS = 4
"""A batch has at least so many windows, however long they are."""
BLUR = 0.25
ORDER, MASKS, HELD = 1, 2, 3
"""What a random choice is for, as part of its seed."""

Windows = NDArray[np.int64]


class Wav2VecLearner:
    """Masked prediction on windows of sound.

    A step's batch is a piece of a permutation of all windows that keeps windows of about the same length together; each window has its own
    random numbers, so that any number of processes sees the same batch.
    """

    watches = True
    shards = False

    def __init__(
        self,
        setting: Setting,
        settings: dict[str, Any],
        *,
        body: nn.Module,
        train: SoundCorpus,
        held: SoundCorpus,
        rows: tuple[Windows, Windows],
    ) -> None:
        self.setting, self.settings = setting, settings
        self.sounds, self.held_sounds = train, held
        self.config: Any = body.config
        self.rows, self.held_rows = (_long_enough(sounds, chosen, self.config) for sounds, chosen in ((train, rows[0]), (held, rows[1])))
        self.frames = {id(s): np.array([wav2vec.n_frames(int(n), self.config) for n in s.lengths]) for s in (train, held)}
        if not len(self.rows) or not len(self.held_rows):
            raise DataError("no recording is long enough", "recordings of a twentieth of a second or more", "give longer recordings")
        self.codebook = None if settings["targets"] == "quantizer" else self._learned()
        with seeded(setting.seed + 1):
            self.module = MaskedBody(body, self._head()).to(setting.device)
        total = int(self.frames[id(train)][self.rows].sum())
        # Every epoch has the same number of batches, so that a step's epoch follows from its number.
        self.per_epoch = max(1, min(round(total / self.batch_frames), len(self.rows) // FEWEST_ROWS))
        self._orders: dict[int, list[Windows]] = {}
        self._known: dict[tuple[int, int], NDArray[np.int16]] = {}
        self.corpus = learner.Corpus(
            source=str(setting.data) if isinstance(setting.data, str | Path) else "the data",
            hash=train.hash,
            items={"recordings": train.n_recordings, "seconds": round(train.seconds), "windows": len(self.rows), "frames": total},
            left_out=train.left_out,
            notes=train.notes,
        )
        self.plan = learner.Plan(
            parameters=sum(p.numel() for p in self.module.parameters()),
            steps=settings["steps"],
            unit="frames",
            count=round(settings["steps"] * total / self.per_epoch),
            seconds=0.0,
            memory_bytes=self._memory(),
        )

    @property
    def batch_frames(self) -> float:
        """Frames of a batch, about."""
        _, stride = wav2vec.field_and_stride(self.config)
        return max(1.0, float(self.settings["batch"]) * float(self.settings["rate"]) / stride)

    def phases(self) -> Sequence[Phase]:
        warmup = float(self.settings["warmup"])
        return [Phase("wav2vec", int(self.settings["steps"]), warmup=warmup, cooldown=1 - warmup, decay="cosine", clip=1.0)]

    def begin(self, phase: int) -> None:
        """Nothing: there is one phase."""

    def groups(self, phase: int) -> Sequence[Group]:
        """Matrices decay, and norms, biases and the mask's vector do not."""
        named = list(self.module.named_parameters())
        free = [p for name, p in named if p.ndim < 2 or any(word in name for word in WEIGHT_DECAY_FREE)]
        kept = {id(p) for p in free}
        decayed = [p for _, p in named if id(p) not in kept]
        lr, betas = float(self.settings["lr"]), (0.9, 0.98)
        return [Group(tuple(decayed), lr, float(self.settings["weight_decay"]), betas=betas), Group(tuple(free), lr, betas=betas)]

    def batch(self, phase: int, step: int) -> Masked:
        epoch, place = divmod(step, self.per_epoch)
        rows = self._order(epoch)[place]
        return self._masked(self.sounds, rows, (MASKS, step), temperature=self._temperature(step), share=True)

    def count(self, batch: Masked) -> int:
        return batch.frames

    def learn(self, module: nn.Module, phase: int, batch: Masked) -> dict[str, Tensor]:
        found = module(batch)
        found["loss"].backward()
        return {name: found[name].detach() for name in ("loss", "accuracy", "perplexity") if name in found}

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        losses, right, _, _ = self._measured(module, CHECKED_SECONDS)
        return {"loss": float(losses.mean()), "accuracy": float(right.mean())}

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        losses, right, codes, owners = self._measured(module, MEASURED_SECONDS)
        n = len(losses)
        found = {
            "validation_loss": Metric(float(losses.mean()), *statistics.mean_interval(losses, owners, bounds=(0.0, math.inf)), n),
            "masked_accuracy": Metric(float(right.mean()), *statistics.mean_interval(right, owners), n),
        }
        return found | {"codebook_perplexity": self._perplexity(codes)}

    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        """Log-mel spectra of held-out windows: masked frames are marked below, white where the prediction is right."""
        found = []
        for row in self.held_rows[:PICTURES]:
            batch = self._masked(self.held_sounds, np.array([row]), (HELD, 0), temperature=wav2vec.GUMBEL[1], share=False)
            right = self._run(module, batch)["right"].cpu().numpy()
            found.append(Picture("masked frames: white where predicted right, dark where not", self._drawn(int(row), batch, right)))
        return found

    def samples(self, module: nn.Module) -> Sequence[str]:
        """None: nothing here is text."""
        return []

    def save(self, folder: Path) -> None:
        """A Wav2Vec2 body with its feature extractor, as ``AutoModel`` and ``AutoFeatureExtractor`` open them."""
        from transformers import Wav2Vec2FeatureExtractor

        store.save_transformers(self.module.body, folder)
        extractor = Wav2Vec2FeatureExtractor(
            feature_size=1, sampling_rate=int(self.settings["rate"]), padding_value=0.0, do_normalize=True, return_attention_mask=True
        )
        extractor.save_pretrained(str(folder))

    def _head(self) -> nn.Module:
        width = int(self.config.hidden_size)
        if self.codebook is not None:
            return wav2vec.CodeHead(width, len(self.codebook.codes))
        per_group = max(2, int(self.settings["codes"]) // GROUPS)
        return wav2vec.Contrast(width, int(self.config.conv_dim[-1]), groups=GROUPS, codes=per_group, projected=QUANTIZED)

    def _order(self, epoch: int) -> list[Windows]:
        """The batches of an epoch: all windows once, sorted by blurred length, cut where batches have the same number of frames."""
        if epoch not in self._orders:
            random = np.random.default_rng([self.setting.seed, ORDER, epoch])
            self._orders = {epoch: cut_evenly(self.rows, self.frames[id(self.sounds)][self.rows], self.per_epoch, random)}
        return self._orders[epoch]

    def _temperature(self, step: int) -> float:
        first, last = wav2vec.GUMBEL
        return float(first * (last / first) ** (step / max(1, int(self.settings["steps"]) - 1)))

    def _masked(self, sounds: SoundCorpus, rows: Windows, purpose: tuple[int, int], *, temperature: float, share: bool) -> Masked:
        """The batch of these windows, or this process's share of it."""
        sizes = self.frames[id(sounds)][rows]
        masks, randoms = [], []
        for row, n in zip(rows.tolist(), sizes.tolist(), strict=True):
            random = np.random.default_rng([self.setting.seed, *purpose, row])
            masks.append(wav2vec.spans(n, share=float(self.settings["mask"]), span=int(self.settings["span"]), random=random))
            randoms.append(random)
        total = int(sum(mask.sum() for mask in masks))
        blocks = min(wav2vec.BLOCKS, len(rows))
        of_row = np.arange(len(rows)) % blocks
        world = self.setting.world if share else 1
        if world > min(len(rows), wav2vec.BLOCKS):
            do = "give fewer processes, or a larger batch: --set objective.batch=SECONDS"
            raise BadOption(
                f"a batch has {len(rows)} windows for {world} processes", f"at least one each, and at most {wav2vec.BLOCKS}", do
            )
        mine = np.flatnonzero(of_row % world == self.setting.rank) if share else np.arange(len(rows))
        wave, attention = wav2vec.padded([sounds.wave(int(rows[i])) for i in mine])
        mask = np.zeros((len(mine), wav2vec.n_frames(wave.shape[1], self.config)), bool)
        for k, i in enumerate(mine):
            mask[k, : len(masks[i])] = masks[i]
        counts = np.array([int(masks[i].sum()) for i in mine])
        extra = self._targets(sounds, rows[mine], [masks[i] for i in mine], [randoms[i] for i in mine], counts)
        device = self.setting.device
        return Masked(
            wave=wave.to(device),
            attention_mask=attention.to(device),
            mask=torch.from_numpy(mask).to(device),
            row=torch.from_numpy(np.repeat(mine, counts)),
            block=torch.from_numpy(np.repeat(of_row[mine], counts)).to(device),
            blocks=blocks,
            total=total,
            world=world,
            temperature=temperature,
            frames=int(sizes[mine].sum()),
            **{name: None if value is None else torch.from_numpy(value).to(device) for name, value in extra.items()},
        )

    def _targets(
        self, sounds: SoundCorpus, rows: Windows, masks: list[Any], randoms: list[np.random.Generator], counts: Windows
    ) -> dict[str, Any]:
        if self.codebook is not None:
            codes = [self._codes(sounds, int(row))[mask] for row, mask in zip(rows, masks, strict=True)]
            return {"targets": np.concatenate(codes), "noise": None, "negatives": None}
        k, size = int(self.settings["negatives"]), GROUPS * max(2, int(self.settings["codes"]) // GROUPS)
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        drawn = [wav2vec.negatives_of(int(n), k, random) + start for n, random, start in zip(counts, randoms, before, strict=True)]
        noise = [random.gumbel(size=(int(n), size)).astype(np.float32) for n, random in zip(counts, randoms, strict=True)]
        return {"targets": None, "noise": np.concatenate(noise), "negatives": np.concatenate(drawn)}

    def _learned(self) -> Codebook:
        """The codebook, from training windows in random order until there are enough frames."""
        random = np.random.default_rng([self.setting.seed, HELD])
        found: list[NDArray[np.float32]] = []
        for row in random.permutation(self.rows):
            found.append(self._features(self.sounds, int(row)))
            if sum(map(len, found)) >= speech_targets.FITTED_FRAMES:
                break
        kind = self.settings["targets"]
        return speech_targets.learned(np.concatenate(found), kind, codes=int(self.settings["codes"]), seed=self.setting.seed)

    def _features(self, sounds: SoundCorpus, row: int) -> NDArray[np.float32]:
        field, stride = wav2vec.field_and_stride(self.config)
        rate = int(self.settings["rate"])
        frames = Frames(rate, stride, field, rate / 2)
        return frames.features(sounds.wave(row), self.settings["targets"], int(self.frames[id(sounds)][row]))

    def _codes(self, sounds: SoundCorpus, row: int) -> NDArray[np.int64]:
        """Codes of all frames of a window, computed when it is first needed."""
        key = (id(sounds), row)
        if key not in self._known and self.codebook is not None:
            self._known[key] = self.codebook(self._features(sounds, row)).astype(np.int16)
        return self._known[key].astype(np.int64)

    def _measured(self, module: nn.Module, seconds: float) -> tuple[Any, Any, Any, Any]:
        """Of held-out windows, up to so many seconds of them: mean loss and accuracy of each, its codes, and its recording."""
        rows: list[int] = []
        total = 0.0
        for row in self.held_rows.tolist():
            total += self.held_sounds.lengths[row] / self.held_sounds.rate
            if rows and total > seconds:
                break
            rows.append(row)
        rows.sort(key=lambda row: int(self.held_sounds.lengths[row]))
        losses, right, codes = np.zeros(len(rows)), np.zeros(len(rows)), [np.zeros(0, np.int64)] * len(rows)
        start = 0
        while start < len(rows):
            stop = start + 1
            while stop < len(rows) and (stop + 1 - start) * self.frames[id(self.held_sounds)][rows[stop]] <= self.batch_frames:
                stop += 1
            part = np.array(rows[start:stop])
            batch = self._masked(self.held_sounds, part, (HELD, 0), temperature=wav2vec.GUMBEL[1], share=False)
            found = self._run(module, batch)
            where = batch.row.numpy()
            for k in range(len(part)):
                losses[start + k] = float(found["losses"].cpu().double().numpy()[where == k].mean())
                right[start + k] = float(found["right"].cpu().double().numpy()[where == k].mean())
                codes[start + k] = found["codes"].cpu().numpy()[where == k]
            start = stop
        return losses, right, codes, self.held_sounds.recordings[rows]

    @torch.no_grad()
    def _run(self, module: nn.Module, batch: Masked) -> dict[str, Tensor]:
        """The module on a batch in evaluation mode."""
        was = module.training
        module.eval()
        found: dict[str, Tensor] = module(batch)
        module.train(was)
        return found

    def _perplexity(self, codes: Sequence[NDArray[np.int64]]) -> Metric:
        """Of predicted codes (of the quantizer: of chosen ones, mean over groups), bootstrapped over windows."""
        flat = [c.reshape(len(c), -1) for c in codes]
        n = int(self.settings["codes"]) if self.codebook is None else len(self.codebook.codes)
        per = max(2, n // GROUPS) if self.codebook is None else n
        counts = np.stack([[np.bincount(c[:, g], minlength=per) for g in range(c.shape[1])] for c in flat])  # (N, G, V)

        def use(draws: NDArray[np.int64]) -> NDArray[np.float64]:
            seen = np.einsum("rn,ngv->rgv", draws.astype(np.float64), counts.astype(np.float64))
            shares = seen / seen.sum(-1, keepdims=True)
            entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(-1)
            found: NDArray[np.float64] = np.exp(entropy).mean(-1) / per
            return found

        ones = np.ones(len(codes), np.int64)
        low, high = statistics.bootstrap(use, ones, seed=self.setting.seed, resamples=200)
        return Metric(float(use(ones[None])[0]) * per, max(1.0, low * per), high * per, len(codes))

    def _memory(self) -> int:
        """Parameters with gradients and two moments, and activations of one batch, of which autograd keeps about four of each size."""
        parameters = sum(p.numel() for p in self.module.parameters())
        samples, kept = float(self.settings["batch"]) * float(self.settings["rate"]), 0.0
        for channels, stride in zip(self.config.conv_dim, self.config.conv_stride, strict=True):
            samples /= stride
            kept += 4 * samples * channels
        kept += 20 * self.batch_frames * int(self.config.hidden_size) * int(self.config.num_hidden_layers)
        return round(16 * parameters + 4 * kept)

    def _drawn(self, row: int, batch: Masked, right: NDArray[Any]) -> Tensor:
        rate = int(self.settings["rate"])
        mel = spectra.log_mel(self.held_sounds.wave(row), rate=rate, bands=64, high=rate / 2)
        picture = ((mel - mel.min()) / max(1e-9, float(np.ptp(mel)))).T[::-1]  # (bands, N), low below
        mask = batch.mask[0].cpu().numpy()
        strip = np.full(len(mask), 0.5)
        strip[mask] = right
        stretched = strip[np.linspace(0, len(strip) - 1, picture.shape[1]).astype(int)]
        return torch.from_numpy(np.concatenate([picture, np.repeat(stretched[None], 6, 0)]).astype(np.float32))


def cut_evenly(rows: Windows, sizes: NDArray[np.int64], n: int, random: np.random.Generator) -> list[Windows]:
    """All rows in ``n`` batches, in random order, of about equal size in sum and of rows of about equal size (blurred by a quarter).

    Every batch has ``FEWEST_ROWS`` rows or more, where there are so many.
    """
    order = np.argsort(sizes * (1 + BLUR * random.random(len(sizes))) + random.random(len(sizes)), kind="stable")
    ends = np.searchsorted(np.cumsum(sizes[order]), np.linspace(0, sizes.sum(), n + 1)[1:-1], side="right").tolist()
    fewest = min(FEWEST_ROWS, len(rows) // n)
    parts, start = [], 0
    for k, end in enumerate([*ends, len(rows)]):
        stop = min(max(end, start + fewest), len(rows) - (n - 1 - k) * fewest)
        parts.append(rows[order[start:stop]])
        start = stop
    return [parts[i] for i in random.permutation(n)]


def _long_enough(sounds: SoundCorpus, rows: Windows, config: Any) -> Windows:
    """The windows that give at least two frames."""
    found: Windows = rows[[wav2vec.n_frames(int(sounds.lengths[row]), config) >= 2 for row in rows]]
    return found


def fresh_body(values: Mapping[str, Any], seed: int) -> nn.Module:
    """A Wav2Vec2 body with fresh weights that follow from the seed."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    store.quiet_transformers()
    with seeded(seed):
        body = Wav2Vec2Model(Wav2Vec2Config(**values))
    assert isinstance(body, nn.Module)  # noqa: S101 - narrows the untyped value
    return body.train()
