"""A head that hears characters in the states of a body: dilated convolutions and CTC, or the body's own CTC layer to start from.

Shapes: B utterances, T frames of the body, U frames of the head, D features, C classes (the blank and the characters).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from warmstart.core.errors import CutRefused
from warmstart.engine import ctc, store, transcripts

WIDTH, DILATIONS = 128, (1, 2, 4, 8)
MOST_UPSAMPLING = 8
FITTING = 0.99
"""Frames are enough when this share of the training rows can be said with them."""
POINTS = 3
KNOWN_SHARE = 0.9
"""A body's own CTC layer is taken where it knows at least this share of the characters."""


class Head(nn.Module):
    """States at ``points`` to marked logits: (B, U, C), with U = T times ``settings["upsample"]``.

    Kind ``convolutional``: states of all points, normalised, projected and added, then residual convolutions over five frames each, ever
    further apart. (A bidirectional GRU in their place takes twice the processor time of a training step.)
    Kind ``linear``: one linear layer on the last state, as the architectures ``...ForCTC`` have it. Maps (B, D, H, W) are read along the
    axis ``settings["time"]`` (2 or 3), features of the other side by side.

    ``settings`` are plain JSON values that make the head again: ``kind, points, dims, upsample, characters, width, time, beam, language,
    weight, reward``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.points = tuple(settings["points"])
        classes, self._upsample = len(settings["characters"]) + 1, int(settings["upsample"])
        self._code = np.array([transcripts.PADDING, *(ord(c) for c in settings["characters"])], np.int64)
        self._class = {int(code): i for i, code in enumerate(self._code) if i}
        counts = settings.get("language")
        self._language = ctc.NGrams(int(counts["order"]), classes, counts["counts"]) if counts else None
        if settings["kind"] == "linear":
            self.out = nn.Linear(settings["dims"][0], classes)
            return
        width = int(settings["width"])
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in settings["dims"])
        self.down = nn.ModuleList(nn.Linear(d, width * self._upsample) for d in settings["dims"])
        self.befores = nn.ModuleList(nn.LayerNorm(width) for _ in DILATIONS)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in DILATIONS)
        self.last = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """Marked logits (B, U, C) in float32 of the unpooled states at the head's points; the last of ``state_masks`` (B, T) says which
        frames are real."""
        rows = [self._sequence(state) for state in states]
        mask: Tensor | None = batch["state_masks"][-1]
        real = mask if mask is not None and mask.shape == rows[-1].shape[:2] else None
        if self.settings["kind"] == "linear":
            return ctc.marked(self.out(rows[-1]), real)
        x = torch.stack([down(norm(row)) for row, norm, down in zip(rows, self.norms, self.down, strict=True)]).sum(0)
        x = x.reshape(len(x), -1, int(self.settings["width"]))  # (B, U, W): each frame's projections side by side in time
        if real is None:
            real = torch.ones(rows[-1].shape[:2], device=x.device)
        real = real.to(x.dtype).repeat_interleave(self._upsample, 1)
        for norm, convolution in zip(self.befores, self.convolutions, strict=True):
            quiet = norm(x) * real.unsqueeze(2)  # padding says nothing to its neighbours
            x = x + nn.functional.gelu(convolution(quiet.transpose(1, 2)).transpose(1, 2))
        return ctc.marked(self.out(self.last(x)), real)

    def _sequence(self, state: Tensor) -> Tensor:
        """A state as frames: (B, T, D) in float32."""
        if state.ndim == 4:
            along = int(self.settings["time"])
            state = state.movedim(along, 1).flatten(2)  # (B, T, D * other axis)
        return state.float()

    def loss(self, outputs: Tensor, targets: Sequence[NDArray[np.int64]], smoothing: float) -> Tensor:
        """CTC loss per character of transcripts as code points; characters that the head does not know are left out."""
        return ctc.loss(outputs, [self.classes(target) for target in targets])

    def classes(self, target: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of a transcript's code points."""
        return np.array([self._class[int(code)] for code in target if int(code) in self._class], np.int64)

    def compact(self, outputs: Tensor) -> NDArray[np.float32]:
        """How sure the best text is, and its code points, padded with -1: (B, 1 + L)."""
        lengths = ctc.frames(outputs).tolist()
        log_probabilities = nn.functional.log_softmax(outputs.detach().float(), 2).cpu().numpy()
        found = [self._decoded(row[:n]) for row, n in zip(log_probabilities, lengths, strict=True)]
        return transcripts.packed([(self._code[classes], sure) for classes, sure in found])

    def _decoded(self, log_probabilities: NDArray[np.float32]) -> tuple[list[int], float]:
        if int(self.settings["beam"]) <= 1:
            return ctc.greedy(log_probabilities)
        return ctc.beam(
            log_probabilities,
            width=int(self.settings["beam"]),
            language=self._language,
            weight=float(self.settings["weight"]),
            reward=float(self.settings["reward"]),
        )


def convolutional(
    shapes: Sequence[tuple[int, ...]],
    characters: Sequence[str],
    targets: Sequence[NDArray[np.int64]],
    lengths: NDArray[np.float64],
    *,
    decoding: dict[str, Any],
    time: int = 2,
) -> Head:
    """A fresh head for a body whose states have these shapes.

    Args:
        shapes: Of one example's state at each point of the trunk.
        characters: What is told apart.
        targets: Transcripts of the training rows as code points.
        lengths: How many frames the body's last state has in each of these rows.
        decoding: ``beam, language, weight, reward``.
        time: The axis of a map (B, D, H, W) that is time: 2 or 3.

    Raises:
        CutRefused: The body has no states in time, or too few for the transcripts.
    """
    points = chosen(shapes, time)
    dims = [s[1] if len(s) == 2 else s[0] * s[4 - time] for s in (shapes[p] for p in points)]
    settings = {
        "kind": "convolutional",
        "points": list(points),
        "dims": dims,
        "upsample": upsampling(targets, lengths),
        "characters": list(characters),
        "width": WIDTH,
        "time": time,
        **decoding,
    }
    return Head(settings)


def chosen(shapes: Sequence[tuple[int, ...]], time: int = 2) -> tuple[int, ...]:
    """The points that are read: the last that has frames, and up to two more before it with as many, spread over the upper half.

    Raises:
        CutRefused: No state has frames.
    """
    usable = [i for i, shape in enumerate(shapes) if len(shape) in (2, 3)]
    if not usable:
        raise CutRefused("the body gives one vector for a recording", "a body whose states have frames", "use one such as Wav2Vec2")

    last = usable[-1]
    alike = [
        p for p in usable if frames(shapes[p], time) == frames(shapes[last], time) and len(shapes[p]) == len(shapes[last]) and 2 * p >= last
    ]
    spread = {alike[int(i)] for i in np.linspace(0, len(alike) - 1, min(POINTS, len(alike)))}
    return tuple(sorted(spread | {last}))


def frames(shape: tuple[int, ...], time: int = 2) -> int:
    """Frames of a state (T, D), or of a map (D, H, W) along the axis ``time`` of its batch."""
    return shape[0] if len(shape) == 2 else shape[time - 1]


def upsampling(targets: Sequence[NDArray[np.int64]], lengths: NDArray[np.float64]) -> int:
    """Frames of the head for one of the body, so that nearly all transcripts can be said: 1, 2, 4 or 8.

    Raises:
        CutRefused: Not even 8 are enough.
    """
    wanted = np.array([ctc.needed(target) for target in targets])
    for times in (1, 2, 4, MOST_UPSAMPLING):
        if (wanted <= lengths * times).mean() >= FITTING:
            return times
    worst = int((wanted / np.maximum(lengths, 1)).argmax())
    raise CutRefused(
        f"the body gives {lengths[worst]:.0f} frames for a transcript of {len(targets[worst])} characters",
        f"at least one frame for {MOST_UPSAMPLING} characters",
        "use a body with more frames a second, such as Wav2Vec2 with 50",
    )


def native(folder: Path, point: int, characters: Sequence[str], *, decoding: dict[str, Any]) -> Head | None:
    """The CTC layer of an architecture such as Wav2Vec2ForCTC in ``folder``, for the characters asked for; None where there is none.

    Its vocabulary is matched in either case, ``|`` is the space. A character that it lacks starts from small random weights; where more
    than one in ten are lacking there is no match.
    """
    vocabulary = store.read_object(folder / "vocab.json")
    files = [store.read_tensors(path) for path in sorted(folder.glob("*.safetensors"))] if vocabulary else []
    weight, bias = (next((f[name] for f in files if name in f), None) for name in ("lm_head.weight", "lm_head.bias"))
    if weight is None:
        return None
    blank = store.read_config(folder).get("pad_token_id", vocabulary.get("<pad>", 0)) or 0
    delimiter = str(store.read_object(folder / "tokenizer_config.json").get("word_delimiter_token") or "|")
    sources = [_token(vocabulary, c, delimiter) for c in characters]
    if sum(s is not None for s in sources) < KNOWN_SHARE * len(characters):
        return None
    head = Head(
        {
            "kind": "linear",
            "points": [point],
            "dims": [weight.shape[1]],
            "upsample": 1,
            "characters": list(characters),
            "width": 0,
            "time": 2,
            **decoding,
        }
    )
    with torch.no_grad():
        for i, source in enumerate([int(blank), *sources]):
            if source is not None and source < len(weight):
                head.out.weight[i] = weight[source].float()
                head.out.bias[i] = bias[source].float() if bias is not None else 0.0
    return head


def _token(vocabulary: dict[str, Any], character: str, delimiter: str) -> int | None:
    names = [delimiter] if character == " " else [character, character.upper(), character.lower()]
    return next((int(vocabulary[name]) for name in names if isinstance(vocabulary.get(name), int)), None)
