"""The cut: run the frozen first blocks of a network once, and everything after them from the stored hidden state.

A *trunk* is the longest list of blocks that a model applies in order. It has ``L`` blocks and ``L + 1`` *points*: point ``k < L`` is
what goes into block ``k``, point ``L`` is what comes out of the last block. For every point, and for every model that `prove` accepts::

    Tail(model, trunk, k)(prefix(model, trunk, batch, k), batch) == model(**batch)

Nothing here knows a model by name, nor text from images: a batch is any mapping of keyword arguments, a state any tensor whose first
dimension is the batch. Where the equation does not hold, `prove` says so and the model is not cut.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from warmstart.core.errors import CutRefused

Batch: TypeAlias = Mapping[str, Any]
"""Keyword arguments of the model: tensors whose first dimension is the batch, e.g. ``input_ids (B, T)``, ``attention_mask (B, T)``."""


@dataclass(frozen=True)
class Trunk:
    """The blocks of a model that hand one hidden state on from each to the next, and where they lie (``"encoder.layer"``)."""

    path: str
    blocks: nn.ModuleList | nn.Sequential

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)


@dataclass(frozen=True)
class Proof:
    """Whether a model may be cut before block ``cut``; ``error`` is the largest difference relative to the largest output."""

    ok: bool
    error: float
    cut: int
    reason: str


class _Reached(Exception):
    """Ends a forward pass at the cut; never leaves this module."""


def find_trunk(model: nn.Module) -> Trunk | None:
    """The list of blocks with the most parameters, or None for a model that has no such list.

    A list is a ``ModuleList`` or ``Sequential`` of blocks of one kind (at most half as many classes as blocks, for hybrids that
    alternate); a list of several blocks is preferred to a wrapper that holds a single one.
    """
    best: tuple[tuple[bool, int, int], Trunk] | None = None
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or not len(module):
            continue
        if len({type(block) for block in module}) > max(1, len(module) // 2):
            continue
        rank = (len(module) > 1, sum(p.numel() for p in module.parameters()), len(module))
        if rank[1] and (best is None or rank > best[0]):
            best = rank, Trunk(path, module)
    return best[1] if best else None


def observe(model: nn.Module, trunk: Trunk, batch: Batch, reduce: Callable[[int, Tensor], None], *, stop: int | None = None) -> Any:
    """Run ``model`` once and show ``reduce`` the hidden state at every point, in order, the moment it exists.

    Nothing is kept here: a ``reduce`` that pools costs the memory of what it pools to. Works under ``torch.inference_mode``.

    Args:
        reduce: called as ``reduce(k, state)`` for the points ``0 .. L`` (``0 .. stop``); state is ``(B, T, D)`` for sequences.
        stop: leave the forward pass at this point, so that the blocks after it cost nothing.

    Returns:
        What the model returned (its ``last_hidden_state`` is point ``L`` after the final norm, where there is one), or None if stopped.
    """
    output = None  # stays so when the pass is left at ``stop``
    with watching(trunk, reduce, stop=stop):
        output = run(model, batch)
    return output  # noqa: RET504


@contextmanager
def watching(trunk: Trunk, reduce: Callable[[int, Tensor], None], *, stop: int | None = None) -> Iterator[None]:
    """Within the block, show ``reduce`` the state at every point of the forward pass that runs there; see `observe`.

    With ``stop`` the block ends when that point is reached.
    """
    last = trunk.n_blocks - 1
    entered: set[int] = set()
    left: list[Tensor] = []

    def enter(k: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if k not in entered:  # a block with shared weights may run again; its first input is the point
            entered.add(k)
            reduce(k, _first(args, kwargs))
            if k == stop:
                raise _Reached

    def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        left[:] = [output if isinstance(output, Tensor) else output[0]]
        if stop == last + 1:
            raise _Reached

    with ExitStack() as hooks:
        for k, block in enumerate(trunk.blocks):
            hooks.callback(block.register_forward_pre_hook(partial(enter, k), with_kwargs=True).remove)
        hooks.callback(trunk.blocks[last].register_forward_hook(leave).remove)
        with suppress(_Reached):
            yield
    if left:
        reduce(last + 1, left[0])


def prefix(model: nn.Module, trunk: Trunk, batch: Batch, cut: int) -> Tensor:
    """The hidden state at point ``cut``: what `Tail` starts from. Costs the blocks before the cut, and no others.

    Raises:
        CutRefused: the forward pass never comes to that point.
    """
    found: list[Tensor] = []
    observe(model, trunk, batch, lambda k, state: found.append(state) if k == cut else None, stop=_checked(trunk, cut))
    if not found:
        raise CutRefused(f"block {cut} of {trunk.path!r} never runs on this batch", "a forward pass through it", "train the whole model")
    return found[0]


class Tail(nn.Module):
    """What is left of ``model`` when its first ``cut`` blocks have run already: ``forward(hidden, batch)`` gives what the model gives.

    The model itself stays as it is. The tail is a second tree over the *same* modules, copied only along the path to the trunk, in
    which the blocks before the cut only pass on and the block at the cut (or, for ``cut == L``, the end of the trunk) takes ``hidden``
    instead of what arrives, in the precision of what arrives. So training the tail trains the model. Embeddings, masks and position
    terms are made by the model's own code but outside autograd: gradients begin at ``hidden``, and everything before has none.

    The first call learns in which form each left-out block hands its state on, by running it once (the random state is kept).
    Move or convert the model before making its tail. Calls must not overlap in several threads.

    Raises:
        CutRefused: ``cut`` is not a point of the trunk.
    """

    def __init__(self, model: nn.Module, trunk: Trunk, cut: int) -> None:
        super().__init__()
        _checked(trunk, cut)
        self._hidden: Tensor | None = None
        self._grad = False
        self.body, blocks = _tree_over(model, trunk)
        for k, name in enumerate(list(blocks._modules)):
            if k < cut:
                left_out = blocks._modules[name] = _PassThrough(trunk.blocks[k], first=k == 0)
            elif k == cut:
                block = blocks._modules[name] = _copied(trunk.blocks[k])
                block.register_forward_pre_hook(self._swap_input, with_kwargs=True)
        if cut == trunk.n_blocks:
            left_out.register_forward_hook(self._swap_output)

    def forward(self, hidden: Tensor, batch: Batch) -> Any:
        """The model's output for ``batch``, given the state ``hidden`` at the cut (as `prefix` or `observe` gave it)."""
        self._grad = torch.is_grad_enabled()
        self._hidden = hidden.clone() if self._grad and hidden.is_inference() else hidden  # autograd cannot save inference tensors
        try:
            with torch.no_grad():  # until the swap, which gives autograd back
                output = run(self.body, batch)
            if self._hidden is not None:
                raise CutRefused("the model never came to the cut", "every block to run once", "switch layer drop off, or train the whole")
        finally:
            self._hidden = None
        return output

    def trained(self, hidden: Tensor, batch: Batch) -> dict[str, nn.Parameter]:
        """The parameters that a loss on this output moves, by their names in the whole model; costs one backward pass."""
        named = {name: p for name, p in self.body.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            loss = sum((t.float().sum() for t in _outputs(self(hidden, batch)) if t.requires_grad), torch.zeros(()))
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True) if loss.requires_grad else [None] * len(named)
        return {name: p for (name, p), gradient in zip(named.items(), gradients, strict=True) if gradient is not None}

    def _swap_input(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        hidden = self._take(_first(args, kwargs))
        if hidden is None:
            return None
        return ((hidden, *args[1:]), kwargs) if args else ((), kwargs | {next(iter(kwargs)): hidden})

    def _swap_output(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = self._take(output if isinstance(output, Tensor) else output[0])
        return hidden if hidden is None or isinstance(output, Tensor) else (hidden, *output[1:])

    def _take(self, arrived: Tensor) -> Tensor | None:
        """The stored state, once a forward pass: a block that runs again goes on from its own output."""
        if self._hidden is None:
            return None
        hidden, self._hidden = self._hidden.to(arrived.dtype), None
        torch.set_grad_enabled(self._grad)
        return hidden


class _PassThrough(nn.Module):
    """Stands for a left-out block: gives back what came in, in the form (tensor or tuple) in which the block would have returned it.

    What a block returns beside the hidden state is passed on if it is something that came in, and None if not. Only the first block
    is run for it, since it sees its true input: T5 makes the position bias of all blocks there.
    """

    def __init__(self, block: nn.Module, *, first: bool) -> None:
        super().__init__()
        self._block = (block,)  # in a tuple: not a submodule, so its parameters are not the tail's
        self._first = first
        self._runs = True
        self._sides: tuple[int | str | None, ...] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_block" not in self.__dict__:  # half made, as while it is being copied
                raise
            return getattr(self._block[0], name)  # e.g. ModernBERT asks each block for its kind of attention

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = _first(args, kwargs)
        if self._runs:
            # Dropout in a block whose result is thrown away must not shift the random numbers of a resumed run.
            with torch.random.fork_rng(devices=[hidden.device] if hidden.is_cuda else []):
                output = self._block[0](*args, **kwargs)
            self._learn(output, _by_key(args, kwargs))
            return output
        if self._sides is None:
            return hidden
        inputs = _by_key(args, kwargs)
        return (hidden, *(None if key is None else inputs.get(key) for key in self._sides))

    def _learn(self, output: Any, inputs: dict[int | str, Any]) -> None:
        if not isinstance(output, Tensor | tuple):
            raise CutRefused(f"its blocks return {type(output).__name__}", "a tensor or a tuple", "train the whole model")
        made = False
        if isinstance(output, tuple):
            sides = output[1:]
            self._sides = tuple(next((key for key, value in inputs.items() if value is side), None) for side in sides)
            made = any(isinstance(side, Tensor) and key is None for side, key in zip(sides, self._sides, strict=True))
        self._runs = self._first and made


def prove(model: nn.Module, trunk: Trunk | None, batch: Batch, cut: int, *, tolerance: float | None = None) -> Proof:
    """Whether prefix + tail equals the whole model (in evaluation mode) on this sample of the user's data. Never raises.

    Both ways do the same arithmetic on the same shapes, so the error of a good cut is 0. The default tolerance, 1e-5 or the spacing of the
    output's floating-point type where that is wider (bfloat16: 2**-7), forgives one differently rounded last bit of the largest output,
    as a GPU may give. In bfloat16 a tiny true difference could hide below that: where it matters, prove in float32.

    Args:
        batch: two or more different rows, padded as in use. Only positions with ``attention_mask`` 1 are compared, where there is one.
        tolerance: largest allowed difference relative to the largest output.
    """
    if trunk is None:
        return Proof(False, float("inf"), cut, "the model has no list of blocks to cut")
    try:
        with _evaluating(model), torch.no_grad():
            return _compared(model, trunk, batch, cut, tolerance)
    except CutRefused as refusal:
        return Proof(False, float("inf"), cut, refusal.given)
    except Exception as error:  # whatever an architecture does that a cut does not foresee, the answer is: do not cut it
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return Proof(False, float("inf"), cut, f"the model does not run when cut ({type(error).__name__}: {first_line})")


def _compared(model: nn.Module, trunk: Trunk, batch: Batch, cut: int, tolerance: float | None) -> Proof:
    before, after = ({id(p) for block in part for p in block.parameters()} for part in _split(trunk, cut))
    if before & after:
        raise CutRefused("blocks before and after the cut share weights, so training would change the stored states")
    whole = _run_in_order(model, trunk, batch)
    hidden = prefix(model, trunk, batch, cut)
    mask = _mask(hidden, batch)
    if mask is not None:  # stored states come back without their padding
        hidden = hidden.masked_fill(~mask.view(*mask.shape, *[1] * (hidden.ndim - 2)), 0.0)
    tail = Tail(model, trunk, cut)
    # In between, other data: whatever a block keeps for a later one outside the hidden state is now that of other rows.
    tail(hidden.flip(0), {name: value.flip(0) if isinstance(value, Tensor) and value.ndim else value for name, value in batch.items()})
    cut_outputs, whole_outputs = _outputs(tail(hidden, batch)), _outputs(whole)
    error = max((_difference(a, b, batch) for a, b in zip(cut_outputs, whole_outputs, strict=True)), default=float("inf"))
    if tolerance is None:
        tolerance = max(1e-5, torch.finfo(whole_outputs[0].dtype).eps) if whole_outputs else 0.0
    if error <= tolerance:  # false for NaN
        return Proof(True, error, cut, "prefix + tail equals the whole model")
    return Proof(
        False,
        error,
        cut,
        f"prefix + tail differs from the whole model by {error:.1e}: blocks after the cut read more than the hidden state",
    )


def _run_in_order(model: nn.Module, trunk: Trunk, batch: Batch) -> Any:
    """The model's output; raises CutRefused unless every block runs exactly once and in its place."""
    order: list[int] = []
    with ExitStack() as hooks:
        for k, block in enumerate(trunk.blocks):
            hooks.callback(block.register_forward_pre_hook(partial(lambda k, *_: order.append(k), k)).remove)
        output = run(model, batch)
    if len(order) > trunk.n_blocks == 1:
        raise CutRefused(f"the model runs one shared block {len(order)} times, so it has no blocks to cut between")
    if order != list(range(trunk.n_blocks)):
        raise CutRefused(f"the blocks of {trunk.path!r} run in the order {order}, not once each in their place")
    return output


def _difference(cut: Tensor, whole: Tensor, batch: Batch) -> float:
    mask = _mask(whole, batch)
    if mask is not None and cut.shape == whole.shape:
        cut, whole = cut[mask], whole[mask]
    if cut.shape != whole.shape or not whole.numel():
        return float("inf")
    return float((cut.float() - whole.float()).abs().max() / whole.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _mask(value: Tensor, batch: Batch) -> Tensor | None:
    """True at the real positions (B, T) of ``value``; None for a batch without padding, or whose mask has another length."""
    mask = batch.get("attention_mask")
    return mask.bool() if isinstance(mask, Tensor) and mask.shape == value.shape[:2] else None


def _outputs(output: Any) -> list[Tensor]:
    """The floating-point tensors of a model's output: one tensor, a tuple, or a mapping such as ``ModelOutput``."""
    values = [output] if isinstance(output, Tensor) else output.values() if isinstance(output, Mapping) else output
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def run(model: nn.Module, batch: Batch) -> Any:
    """The model's output for the batch, whose floating-point tensors are brought to the model's precision."""
    # A cache of keys and values would only cost memory: nothing is generated.
    without_cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    return model(**(without_cache | converted(batch, model)))


def converted(batch: Batch, model: nn.Module) -> dict[str, Any]:
    """The batch with pixels and waves in the precision of the model: many bodies do not convert what they get."""
    precision = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return {k: v.to(precision) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}


def _tree_over(model: nn.Module, trunk: Trunk) -> tuple[nn.Module, nn.Module]:
    """The model and its list of blocks, copied along the path between them; all else is shared."""
    root = node = _copied(model)
    for name in filter(None, trunk.path.split(".")):
        child = node._modules[name] = _copied(node.get_submodule(name))
        node = child
    return root, node


def _copied(module: nn.Module) -> nn.Module:
    """A module with its own children and hooks before the forward pass; parameters, buffers and all else are the original's."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._forward_pre_hooks = OrderedDict(module._forward_pre_hooks)
    twin._forward_pre_hooks_with_kwargs = OrderedDict(module._forward_pre_hooks_with_kwargs)
    return twin


def _split(trunk: Trunk, cut: int) -> tuple[list[nn.Module], list[nn.Module]]:
    blocks = list(trunk.blocks)
    return blocks[: _checked(trunk, cut)], blocks[cut:]


def _checked(trunk: Trunk, cut: int) -> int:
    if not 0 <= cut <= trunk.n_blocks:
        raise CutRefused(f"cut {cut} is not a point of a trunk of {trunk.n_blocks} blocks", f"0 to {trunk.n_blocks}", "choose another cut")
    return cut


def _by_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, Any]:
    return dict(enumerate(args)) | dict(kwargs.items())


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden state among a block's arguments: by every library's custom the first."""
    return args[0] if args else next(iter(kwargs.values()))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
