"""Body + head as one differentiable function, whole or from a cut.

Two heads: *pooled* (ours) is linear in the mean over tokens of the states at chosen points of the trunk; *native* is the
architecture's own classifier, which ``transformers.pipeline`` can open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.engine import cut


def masked_mean(state: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real positions of ``(B, T, D)`` in float32: (B, D)."""
    if mask is None:
        return state.float().flatten(1, -2).mean(1)
    weight = mask.to(torch.float32)  # (B, T)
    return torch.bmm(weight.unsqueeze(1), state.float()).squeeze(1) / weight.sum(1, keepdim=True).clamp_min(1)  # (B, D)


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

    def forward(self, pooled: Tensor) -> Tensor:
        x = pooled[:, list(self.points)].flatten(1)  # (B, points * D)
        return nn.functional.linear((x - self.shift) * self.scale, self.weight, self.bias)  # (B, C)


class Network(nn.Module):
    """Body and head. ``body`` is what the trunk was found in: the plain body, or the whole native classifier.

    Points of a body without a trunk: only its final output, so its pooled states are (B, 1, D).
    """

    def __init__(self, body: nn.Module, head: PooledHead | None) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.trunk = cut.find_trunk(body)

    def forward(self, batch: cut.Batch) -> Tensor:
        """Logits (B, C) in float32 of a batch of encoded examples."""
        if self.head is None:
            return _logits(self.body(**batch))
        logits: Tensor = self.head(pooled_states(self.body, self.trunk, batch, points=self.head.points))
        return logits

    def from_cut(self, tail: cut.Tail, hidden: Tensor, lower: Tensor, batch: cut.Batch) -> Tensor:
        """The same logits from the stored state ``hidden (B, T, D)`` at the tail's cut.

        ``lower (B, cut, D)`` holds the pooled states of the points before the cut, which the pooled head reads too.
        """
        if self.head is None:
            return _logits(tail(hidden, batch))
        upper = self.states_from_cut(tail, hidden, batch, points=self.head.points)
        logits: Tensor = self.head(torch.cat([lower, upper[:, lower.shape[1] :]], dim=1))
        return logits

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

    Args:
        call: Runs the body, where that is more than ``body(**batch)``.
        stop: Leave the body at this point: (B, stop + 1, D).
        visit: Sees the unpooled state (B, T, D) at every point, as the trunk hands it on.
        points: Pool here only (None: everywhere); the others are 0, and cost training neither a cast nor a gradient.
    """
    mask = batch.get("attention_mask")
    found: list[Tensor] = []
    whole = trunk is None or stop is None or stop >= trunk.n_blocks

    def see(point: int, state: Tensor) -> None:
        found.append(masked_mean(state, mask) if points is None or point in points else state.new_zeros((), dtype=torch.float32))
        if visit is not None:
            visit(point, state)

    with cut.watching(trunk, see, stop=None if whole else stop) if trunk is not None else nullcontext():
        output = cut.run(body, batch) if call is None else call()
    if whole:
        # The trunk's own last state lacks the body's final norm, which bodies such as GPT-2 and Llama need.
        found[len(found) - (trunk is not None) :] = [masked_mean(last_state(output), mask)]
    return torch.stack(torch.broadcast_tensors(*found), dim=1)


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
    """The body's final output (B, T, D), whatever it is wrapped in."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def _logits(output: Any) -> Tensor:
    found: Tensor = output["logits"] if isinstance(output, Mapping) else last_state(output)
    return found.float()
