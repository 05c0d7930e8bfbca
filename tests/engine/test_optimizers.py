"""Optimisers of pre-training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from warmstart.core.errors import BadOption
from warmstart.engine import optimizers
from warmstart.engine.learner import Group


def _parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    found = [nn.Parameter(torch.randn(*shape)) for shape in shapes]
    for parameter in found:
        parameter.grad = torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 16), (2, 16, 4)])
def test_orthogonal_keeps_singular_vectors_and_evens_out_singular_values(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(*shape)
    found = optimizers.orthogonal(matrices)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ found @ vh.mT  # diagonal, were it exact
    values = torch.diagonal(inner, dim1=-2, dim2=-1)
    assert values.min() > 0.3
    assert values.max() < 1.4
    assert (inner - torch.diag_embed(values)).abs().max() < 0.1
    assert optimizers.orthogonal(torch.zeros(1, 3, 3)).abs().max() == 0


def test_muon_agrees_with_torch() -> None:
    ours, theirs = _parameters((8, 8), (8, 8), (4, 16), (16, 4)), _parameters((8, 8), (8, 8), (4, 16), (16, 4))
    ours_optimizer = optimizers.build([Group(tuple(ours), lr=0.02, weight_decay=0.1, kind="muon")])[0]
    theirs_optimizer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for step in range(3):
        torch.manual_seed(step)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours_optimizer.step()
        theirs_optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 0.02 * 3 * 0.05  # both round to bfloat16 on the way


def test_state_is_plain_tensors_by_parameter_and_resumes_to_the_same_bits() -> None:
    def groups(parameters: list[nn.Parameter]) -> list[Group]:
        return [
            Group((parameters[0],), lr=0.02, kind="muon"),
            Group((parameters[1],), lr=0.1, kind="sgd", momentum=0.9),
            Group((parameters[2],), lr=0.1, weight_decay=0.1),
        ]

    def steps(parameters: list[nn.Parameter], built: list[torch.optim.Optimizer], span: range) -> None:
        for step in span:
            torch.manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            for optimizer in built:
                optimizer.step()

    whole = _parameters((4, 4), (4, 4), (4,))
    steps(whole, optimizers.build(groups(whole)), range(6))
    first = _parameters((4, 4), (4, 4), (4,))
    built = optimizers.build(groups(first))
    steps(first, built, range(3))
    second = [nn.Parameter(p.detach().clone()) for p in first]
    again = optimizers.build(groups(second))
    for old, new, p, q in zip(built, again, first, second, strict=True):
        assert all(isinstance(value, torch.Tensor) for value in old.state[p].values())
        new.state[q] = {name: value.clone() for name, value in old.state[p].items()}
    steps(second, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))


def test_muon_scales_tall_matrices_and_takes_matrices_alone() -> None:
    tall = _parameters((16, 4))
    before = tall[0].detach().clone()
    optimizers.build([Group(tuple(tall), lr=1.0, kind="muon")])[0].step()
    assert float(torch.linalg.svdvals(before - tall[0].detach()).max()) == pytest.approx(math.sqrt(16 / 4), rel=0.3)
    with pytest.raises(BadOption, match="matrices alone"):
        optimizers.build([Group(tuple(_parameters((4,))), lr=0.1, kind="muon")])


def test_moments_from_a_file_lie_as_their_parameter_does() -> None:
    """Fused AdamW goes through storage: in another order a weight would get the moment of another one."""

    def stepped(parameter: torch.Tensor, moments: dict[str, torch.Tensor] | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        own = torch.nn.Parameter(parameter.clone(memory_format=torch.preserve_format))
        (optimizer,) = optimizers.build([Group((own,), 0.01)])
        for name, value in (moments or {}).items():
            optimizer.state[own][name] = optimizers.in_order_of(own, value)
        own.grad = torch.randn(own.shape, generator=torch.Generator().manual_seed(7)).to(memory_format=torch.channels_last)
        optimizer.step()
        return own.detach(), {name: value.clone() for name, value in optimizer.state[own].items()}

    start = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    once, state = stepped(start, None)
    read = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    assert read["exp_avg"].stride() != once.stride()
    assert torch.equal(stepped(once, read)[0], stepped(once, state)[0])
