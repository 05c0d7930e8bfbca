"""Body + head as one differentiable function, whole or from a cut.

Two heads: *pooled* (ours) is linear in the mean over tokens of the states at chosen points of the trunk; *native* is the
architecture's own classifier, which ``transformers.pipeline`` can open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from warmstart.engine import cut


def masked_mean(state: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real positions of a state in float32: (B, T, D), a map (B, D, H, W) or a vector (B, D) gives (B, D)."""
    if state.ndim == 2:
        return state.float()
    if state.ndim > 3:
        return state.float().flatten(2).mean(2)
    if mask is None:
        return state.float().mean(1)
    weight = mask.to(torch.float32)  # (B, T)
    return torch.bmm(weight.unsqueeze(1), state.float()).squeeze(1) / weight.sum(1, keepdim=True).clamp_min(1)  # (B, D)


def state_mask(body: nn.Module, state: Tensor, batch: cut.Batch) -> Tensor | None:
    """Which positions of a state (B, T, D) are real, as (B, T); None where all are, or where nobody can tell.

    A body that shortens time on its way (Wav2Vec2, Whisper) says itself what becomes of the mask. One that does not say has made a whole
    number of positions of every token.
    """
    mask = batch.get("attention_mask")
    if mask is None or state.ndim != 3 or mask.shape == state.shape[:2]:
        return mask if state.ndim == 3 else None
    own = getattr(body, "base_model", body)
    shorten, count = (getattr(own, name, None) for name in ("_get_feature_vector_attention_mask", "_get_feat_extract_output_lengths"))
    if shorten is not None:
        found: Tensor = shorten(state.shape[1], mask)
        return found
    if count is not None:
        real: Tensor = torch.arange(state.shape[1], device=mask.device) < count(mask.sum(1, keepdim=True))
        return real
    times, left = divmod(state.shape[1], mask.shape[1])
    repeated: Tensor = mask.repeat_interleave(times, 1)
    return None if left else repeated


def as_rows(state: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The state of each example as it is stored: its real positions (T, D), the cells of its map (H * W, D), or its vector (1, D)."""
    if state.ndim == 2:
        return list(state.unsqueeze(1))
    if state.ndim > 3:
        return list(state.flatten(2).transpose(1, 2))
    return list(state) if mask is None else [row[: int(n)] for row, n in zip(state, mask.sum(1).tolist(), strict=True)]


def from_rows(rows: Sequence[Tensor], shape: Sequence[int], *, length: int) -> Tensor:
    """What ``as_rows`` took apart, put together: ``shape`` is one example's, and sequences are padded to ``length``."""
    if len(shape) != 2:
        together = torch.stack(list(rows))
        return together.squeeze(1) if len(shape) == 1 else together.transpose(1, 2).reshape(len(rows), *shape)
    found = torch.zeros(len(rows), length, rows[0].shape[1], dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


def state_length(body: nn.Module, batch: cut.Batch, lengths: Sequence[int]) -> int:
    """Positions of the states that the body has for this batch, given how many of them are real in each row."""
    mask = batch.get("attention_mask")
    if mask is None:
        return max(lengths)
    times = lengths[0] // max(1, int(mask[0].sum()))
    if (times * mask.sum(1)).tolist() == list(lengths):
        return times * int(mask.shape[1])
    shorten = getattr(getattr(body, "base_model", body), "_get_feat_extract_output_lengths", None)
    return max(lengths) if shorten is None else int(shorten(mask.shape[1]))


def widened(states: Tensor, width: int) -> Tensor:
    """Pooled states (B, P, D) with zeros behind their features up to ``width``."""
    return states if states.shape[-1] >= width else nn.functional.pad(states, (0, width - states.shape[-1]))


class PooledHead(nn.Module):
    """``logits = W ((x - shift) * scale) + b`` where ``x`` joins the pooled states at ``points``: (B, S, D) -> (B, C).

    ``shift`` and ``scale`` standardise and are not trained.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, points: Sequence[int], weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.points = tuple(points)
        self.weight = nn.Parameter(weight.clone().float())
        self.bias = nn.Parameter(bias.clone().float())
        self.register_buffer("shift", shift.clone().float())
        self.register_buffer("scale", scale.clone().float())

    @classmethod
    def blank(cls, point: int, *, width: int, classes: int) -> PooledHead:
        """A head of zeros on one point, for weights to be put into."""
        return cls([point], torch.zeros(classes, width), torch.zeros(classes), torch.zeros(width), torch.ones(width))

    def forward(self, pooled: Tensor) -> Tensor:
        width = len(self.shift) // len(self.points)  # of the widest point, which may not be among those that were pooled
        x = widened(pooled[:, list(self.points)], width).flatten(1)  # (B, points * D)
        return nn.functional.linear((x - self.shift) * self.scale, self.weight, self.bias)  # (B, C)


class StructuredHead(Protocol):
    """What reads unpooled states at ``points`` and gives raw outputs of a structured task: a module, made again from ``settings``.

    It may have a ``loss`` and a ``compact`` of its own, as ``core.structured.StructuredTask`` has them.
    """

    points: tuple[int, ...]
    settings: dict[str, Any]

    def __call__(self, states: Sequence[Tensor], batch: cut.Batch) -> Tensor:
        """Raw outputs (B, ...). ``batch`` also holds ``state_masks``: for each state which positions are real (B, T), or None."""
        ...


class Network(nn.Module):
    """Body and head. ``body`` is what the trunk was found in: the plain body, or the whole native classifier.

    A head that is no ``PooledHead`` is a ``StructuredHead``.

    Points of a body without a trunk: only its final output, so its pooled states are (B, 1, D).
    """

    def __init__(self, body: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.head: Any = head
        self.trunk = cut.find_trunk(body)

    @property
    def structured(self) -> bool:
        """Whether the head reads unpooled states."""
        return self.head is not None and not isinstance(self.head, PooledHead)

    def forward(self, batch: cut.Batch) -> Tensor:
        """Logits (B, C) in float32 of a batch of encoded examples, or raw outputs (B, ...) of a structured head."""
        if self.head is None:
            return _logits(self.body(**cut.converted(batch, self.body)))
        if self.structured:
            return self.read(unpooled(self.body, self.trunk, batch, self.head.points), batch)
        logits: Tensor = self.head(pooled_states(self.body, self.trunk, batch, points=self.head.points))
        return logits

    def from_cut(self, tail: cut.Tail, hidden: Tensor, lower: Tensor, batch: cut.Batch) -> Tensor:
        """The same logits from the stored state ``hidden (B, T, D)`` at the tail's cut.

        ``lower (B, cut, D)`` holds the pooled states of the points before the cut, which the pooled head reads too.
        """
        if self.head is None:
            return _logits(tail(hidden, batch))
        upper = widened(self.states_from_cut(tail, hidden, batch, points=self.head.points), lower.shape[2])
        logits: Tensor = self.head(torch.cat([lower, upper[:, lower.shape[1] :]], dim=1))
        return logits

    def read(self, states: Sequence[Tensor], batch: cut.Batch) -> Tensor:
        """Raw outputs of a structured head of the states at its points."""
        outputs: Tensor = self.head(states, {**batch, "state_masks": [state_mask(self.body, state, batch) for state in states]})
        return outputs

    def outputs_from_cut(self, tail: cut.Tail, hidden: Tensor, stored: Mapping[int, Tensor], batch: cut.Batch) -> Tensor:
        """The raw outputs of a structured head from the stored state at the tail's cut; ``stored`` holds the states of points up to it."""
        assert self.trunk is not None  # noqa: S101 - a tail has a trunk
        above = [point for point in self.head.points if point not in stored]
        blocks: Any = tail.body.get_submodule(self.trunk.path)
        found = dict(stored)
        if above:
            states = unpooled(tail.body, cut.Trunk(self.trunk.path, blocks), batch, above, call=lambda: tail(hidden, batch))
            found |= dict(zip(above, states, strict=True))
        return self.read([found[point] for point in self.head.points], batch)

    def states_from_cut(self, tail: cut.Tail, hidden: Tensor, batch: cut.Batch, *, points: Sequence[int] | None = None) -> Tensor:
        """Pooled states (B, L + 1, D) from the stored state; those before the cut, and outside ``points``, mean nothing."""
        assert self.trunk is not None  # noqa: S101 - a tail has a trunk
        blocks = tail.body.get_submodule(self.trunk.path)
        return pooled_states(tail.body, cut.Trunk(self.trunk.path, blocks), batch, call=lambda: tail(hidden, batch), points=points)  # type: ignore[arg-type]


def pooled_states(
    body: nn.Module,
    trunk: cut.Trunk | None,
    batch: cut.Batch,
    *,
    call: Callable[[], Any] | None = None,
    stop: int | None = None,
    visit: Callable[[int, Tensor], None] | None = None,
    points: Collection[int] | None = None,
) -> Tensor:
    """Mean-pooled state at every point of the trunk, the last after the body's final norm: (B, L + 1, D) in float32.

    Points differ in width in many bodies for images: D is the widest, and the others have zeros behind their features.

    Args:
        call: Runs the body, where that is more than ``body(**batch)``.
        stop: Leave the body at this point: (B, stop + 1, D).
        visit: Sees the unpooled state (B, T, D) at every point, as the trunk hands it on; at the last, as the body ends.
        points: Pool here only (None: everywhere); the others are 0, and cost training neither a cast nor a gradient.
    """
    found: list[Tensor | None] = []
    whole = trunk is None or stop is None or stop >= trunk.n_blocks

    end = trunk.n_blocks if trunk is not None else 0

    def see(point: int, state: Tensor) -> None:
        found.append(masked_mean(state, state_mask(body, state, batch)) if points is None or point in points else None)
        if visit is not None and not (whole and point == end):
            visit(point, state)

    with cut.watching(trunk, see, stop=None if whole else stop) if trunk is not None else nullcontext():
        output = cut.run(body, batch) if call is None else call()
    if whole:
        # The trunk's own last state lacks the body's final norm, which bodies such as GPT-2 and Llama need.
        last = last_state(output)
        found[len(found) - (trunk is not None) :] = [masked_mean(last, state_mask(body, last, batch))]
        if visit is not None:
            visit(end, last)
    pooled = [state for state in found if state is not None]
    widest = max(state.shape[1] for state in pooled)
    nothing = pooled[0].new_zeros(len(pooled[0]), widest)
    return torch.stack([nothing if state is None else nn.functional.pad(state, (0, widest - state.shape[1])) for state in found], dim=1)


def unpooled(
    body: nn.Module, trunk: cut.Trunk | None, batch: cut.Batch, points: Sequence[int], *, call: Callable[[], Any] | None = None
) -> list[Tensor]:
    """The states at these points as they are, the last of the trunk as the body ends: (B, T, D), (B, D, H, W) or (B, D) each.

    Arguments are those of ``pooled_states``.
    """
    end = trunk.n_blocks if trunk is not None else 0
    found: dict[int, Tensor] = {}

    def see(point: int, state: Tensor) -> None:
        if point in points:
            found[point] = state

    stop = max(points)
    with cut.watching(trunk, see, stop=None if stop == end else stop) if trunk is not None else nullcontext():
        output = cut.run(body, batch) if call is None else call()
    if stop == end:
        found[end] = last_state(output)
    return [found[point] for point in points]


def groups_by_depth(body: nn.Module, trunk: cut.Trunk | None) -> list[list[nn.Parameter]]:
    """Parameters from the output downwards: what follows the trunk, its blocks from last to first, what comes before it.

    The order of layer-wise learning rates (Howard & Ruder 2018). A body without a trunk is one group.
    """
    if trunk is None:
        return [list(body.parameters())]
    blocks = [list(b.parameters()) for b in trunk.blocks]
    inside = {id(p) for block in blocks for p in block}
    names = [name for name, _ in body.named_parameters()]
    first = next((i for i, name in enumerate(names) if name.startswith(f"{trunk.path}.")), 0)
    before: list[nn.Parameter] = []
    after: list[nn.Parameter] = []
    for i, (_, parameter) in enumerate(body.named_parameters()):
        if id(parameter) not in inside:
            (before if i < first else after).append(parameter)
    return [after, *reversed(blocks), before]


@contextmanager
def only_trainable(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the block only these parameters take gradients; what was set before comes back."""
    before = {p: p.requires_grad for p in module.parameters()}
    chosen = {id(p) for p in parameters}
    for parameter in before:
        parameter.requires_grad_(id(parameter) in chosen)
    try:
        yield
    finally:
        for parameter, flag in before.items():
            parameter.requires_grad_(flag)


def last_state(output: Any) -> Tensor:
    """The body's final output, (B, T, D), (B, D, H, W) or (B, D), whatever it is wrapped in."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def _logits(output: Any) -> Tensor:
    found: Tensor = output["logits"] if isinstance(output, Mapping) else last_state(output)
    return found.float()
