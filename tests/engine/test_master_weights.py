"""AdamW with copies in a lower precision, and row by row on large tables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from warmstart.engine import master_weights


class Net(nn.Module):
    """A table of 20 rows and a linear layer; ``sparse`` gradients for the table."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer = nn.Embedding(20, 4, sparse=sparse), nn.Linear(4, 1)

    def loss(self, ids: Tensor) -> Tensor:
        return (self.layer(self.table(ids)).squeeze(-1) - ids).pow(2).mean()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_weights, "LARGE", 50)


def batches() -> list[Tensor]:
    return [torch.tensor(ids) for ids in ([1, 2, 2, 5], [1, 7], [5, 5, 5], [1, 2, 7])]


def ours(net: Net, *, clip: float = 1e9, decay: float = 0.0) -> master_weights.Optimizer:
    groups = [
        master_weights.Group((net.table.weight,), 1e-2, decay),
        master_weights.Group(tuple(net.layer.parameters()), 1e-2, decay),
    ]
    return master_weights.Optimizer(groups, copies=None, tables=[net.table.weight] if net.table.sparse else [], clip=clip)


def test_dense_steps_are_those_of_adamw_with_clipping() -> None:
    net, other = Net(), Net()
    mine = ours(net, clip=0.5, decay=0.1)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.5e-2, weight_decay=0.1, fused=True)
    for ids in batches():
        net.loss(ids).backward()
        mine.step(0.5)
        other.loss(ids).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        theirs.step()
        theirs.zero_grad()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert a.grad is None


def test_a_table_moves_row_by_row_as_in_sparse_adam() -> None:
    net, other = Net(sparse=True), Net(sparse=True)
    before = net.table.weight.detach().clone()
    mine = ours(net, decay=0.1)
    rows, dense = torch.optim.SparseAdam([other.table.weight], lr=1e-2), torch.optim.AdamW(other.layer.parameters(), 1e-2, weight_decay=0.1)
    for ids in batches():
        net.loss(ids).backward()
        mine.step(1.0)
        other.loss(ids).backward()
        for theirs in (rows, dense):
            theirs.step()
            theirs.zero_grad()
    torch.testing.assert_close(net.table.weight, other.table.weight)
    torch.testing.assert_close(net.layer.weight, other.layer.weight)
    untouched = [i for i in range(20) if i not in (1, 2, 5, 7)]
    assert torch.equal(net.table.weight[untouched], before[untouched])
    assert not torch.equal(net.table.weight[[1, 2, 5, 7]], before[[1, 2, 5, 7]])


def test_clipping_sees_the_rows_of_a_table() -> None:
    dense, sparse = Net(), Net(sparse=True)
    for net in (dense, sparse):
        net.loss(batches()[0]).backward()
    norms = [float(nn.utils.get_total_norm([p.grad for p in dense.parameters() if p.grad is not None]))]
    step = ours(sparse, clip=1e-6)
    step.step(1.0)  # all moments are those of clipped gradients
    squares = [float(v.sum()) for name, v in step.tensors().items() if name.startswith("exp_avg_sq")]
    assert norms[0] > 1
    assert sum(squares) == pytest.approx(1e-3 * 1e-12, rel=1e-3)


def test_copies_give_the_gradients_and_follow() -> None:
    net, copy = Net(), Net(sparse=True).to(torch.bfloat16)
    groups = [master_weights.Group(tuple(net.parameters()), 1e-2)]
    mine = master_weights.Optimizer(groups, copies=list(copy.parameters()), tables=[net.table.weight], clip=1.0)
    for ids in batches():
        copy.loss(ids).backward()
        mine.step(1.0)
    for parameter, twin in zip(net.parameters(), copy.parameters(), strict=True):
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter.to(torch.bfloat16), twin)
        assert twin.grad is None
    assert not torch.equal(net.layer.weight, Net().layer.weight)


def test_a_restored_optimizer_goes_on_to_the_same_bits() -> None:
    whole, resumed = Net(sparse=True), Net(sparse=True)
    first, begun = ours(whole), ours(resumed)
    for ids in batches()[:2]:
        for net, mine in ((whole, first), (resumed, begun)):
            net.loss(ids).backward()
            mine.step(1.0)
    fresh = Net(sparse=True)
    second = ours(fresh)
    second.restore({name: value.clone() for name, value in begun.tensors().items()})
    for ids in batches()[2:]:
        for net, mine in ((whole, first), (fresh, second)):
            net.loss(ids).backward()
            mine.step(0.7)
    for a, b in zip(whole.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_large_trained_tables_give_row_gradients_and_only_for_a_while() -> None:
    net = Net()
    with master_weights.row_gradients(net, list(net.parameters())) as tables:
        assert [t is net.table.weight for t in tables] == [True]
        assert net.table.sparse
    assert not net.table.sparse
    with master_weights.row_gradients(net, list(net.layer.parameters())) as tables:
        assert tables == []
        assert not net.table.sparse


def test_a_table_with_a_dense_gradient_moves_in_every_row() -> None:
    net = Net()
    groups = [master_weights.Group((net.table.weight,), 1e-2), master_weights.Group(tuple(net.layer.parameters()), 1e-2)]
    mine = master_weights.Optimizer(groups, copies=None, tables=[net.table.weight], clip=1e9)
    before = net.table.weight.detach().clone()
    net.table.weight.sum().backward()
    mine.step(1.0)
    torch.testing.assert_close(net.table.weight, before - 1e-2)
