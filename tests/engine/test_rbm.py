"""Energies, gradients, and likelihoods of restricted Boltzmann machines, against sums over all states."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from warmstart.engine import rbm, rbm_likelihood
from warmstart.engine.dbn import DeepBelief
from warmstart.engine.rbm import Rbm


def _machine(visible: int = 6, hidden: int = 4, **units: str) -> Rbm:
    torch.manual_seed(0)
    machine = Rbm(visible, hidden, chains=5, **units)  # type: ignore[arg-type]
    with torch.no_grad():
        machine.weight.normal_()
        machine.visible_bias.normal_()
        machine.hidden_bias.normal_()
    return machine


def _states(n: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)))


def _energies(machine: Rbm, v: Tensor, h: Tensor) -> Tensor:
    """(V states, H states), written out."""
    return -(v @ machine.weight.T @ h.T) - (v @ machine.visible_bias)[:, None] - (h @ machine.hidden_bias)[None]


def test_free_energy_sums_the_hidden_states_away() -> None:
    machine = _machine()
    v, h = _states(6), _states(4)
    assert torch.allclose(machine.free_energy(v), -torch.logsumexp(-_energies(machine, v, h), 1), atol=1e-5)


def test_free_energies_with_gaussian_units_are_integrals() -> None:
    torch.manual_seed(1)
    top = _machine(3, 1, hidden_units="gaussian")
    v, grid = _states(3), torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    c = float(top.hidden_bias.detach())
    energy = (grid.T - c).square() / 2 - (v @ top.weight.T).detach().double() @ grid.T - (v @ top.visible_bias).detach().double()[:, None]
    integral = -torch.logsumexp(-energy, 1) - math.log(0.001) + math.log(2 * math.pi) / 2
    assert torch.allclose(top.free_energy(v).detach().double(), integral, atol=1e-4)
    bottom = _machine(3, 2, visible_units="gaussian")
    x, h = torch.randn(7, 3), _states(2)
    energy = (x - bottom.visible_bias).square().sum(1)[:, None] / 2 - x @ bottom.weight.T @ h.T - (h @ bottom.hidden_bias)[None]
    assert torch.allclose(bottom.free_energy(x), -torch.logsumexp(-energy, 1), atol=1e-4)


def test_exact_partition_function_is_the_sum_over_everything() -> None:
    for machine in (_machine(6, 4), _machine(4, 6)):
        v, h = _states(machine.weight.shape[1]), _states(machine.weight.shape[0])
        expected = float(torch.logsumexp(-_energies(machine, v, h).detach().double().flatten(), 0))
        assert rbm_likelihood.exact_log_partition(machine) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="too many"):
        rbm_likelihood.exact_log_partition(Rbm(30, 30))


def test_annealed_importance_sampling_agrees_with_the_exact_value() -> None:
    machine = _machine(14, 9)
    generator = torch.Generator().manual_seed(0)
    found, low, high = rbm_likelihood.annealed_log_partition(machine, torch.full((14,), 0.5), steps=400, chains=200, generator=generator)
    exact = rbm_likelihood.exact_log_partition(machine)
    assert low <= found <= high
    assert high - low < 0.2
    assert abs(found - exact) < 0.1


def test_pseudo_likelihood_is_that_of_scikit_learn() -> None:
    from sklearn.neural_network import BernoulliRBM

    machine = _machine(9, 5)
    theirs = BernoulliRBM(5, random_state=3)
    theirs.components_ = machine.weight.detach().double().numpy()
    theirs.intercept_hidden_ = machine.hidden_bias.detach().double().numpy()
    theirs.intercept_visible_ = machine.visible_bias.detach().double().numpy()
    x = torch.rand(4_000, 9).round()
    ours = rbm_likelihood.pseudo_likelihood(machine, x, torch.Generator().manual_seed(0)).double().numpy()
    other = theirs.score_samples(x.numpy())
    error = math.sqrt(ours.var() / len(ours) + other.var() / len(other))
    assert abs(ours.mean() - other.mean()) < 4 * error
    conditional = []  # the mean over all units, exactly
    for i in range(9):
        flipped = x.clone()
        flipped[:, i] = 1 - flipped[:, i]
        conditional.append(torch.sigmoid(machine.free_energy(flipped) - machine.free_energy(x)).log())
    exact = float(torch.stack(conditional).sum(0).mean().detach())
    assert abs(ours.mean() - exact) < 4 * ours.std() / math.sqrt(len(ours))


def test_states_are_drawn_as_often_as_their_means_say() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([0.0, 0.001, 0.3, 0.999, 1.0])
    drawn = rbm.noise((200_000, 5), "bernoulli", generator, torch.device("cpu"))
    for kind in (torch.float32, torch.bfloat16):
        share = rbm.sampled(means.to(kind).expand(200_000, 5), drawn, "bernoulli").float().mean(0)
        assert torch.allclose(share, means, atol=0.004)
        assert share[0] == 0
        assert share[4] == 1
    assert drawn.float().mean().abs() < 100
    assert (drawn[:-1, 0].float() * drawn[1:, 0].float()).mean().abs() / drawn.float().square().mean() < 0.02


def test_the_gradient_is_that_of_the_free_energies() -> None:
    """Data minus chain; the negative phase is read off the states that the chain arrives at."""
    machine = _machine(6, 4)
    x = torch.rand(8, 6).round()
    generator = torch.Generator().manual_seed(2)
    draws = rbm.drawn(machine, 8, 2, persistent=True, generator=generator)
    h = machine.chain.clone()
    v = rbm.sampled(machine.visible_mean(h), draws[0], "bernoulli")
    h = rbm.sampled(machine.hidden_mean(v), draws[1], "bernoulli")
    v = rbm.sampled(machine.visible_mean(h), draws[2], "bernoulli").detach()
    loss = rbm.contrast(machine, rbm.Rows(x, draws), rbm.How(2, persistent=True))
    found = [p.grad.clone() for p in machine.parameters() if p.grad is not None]
    expected = machine.free_energy(x).mean() - machine.free_energy(v).mean()
    wanted = torch.autograd.grad(expected, list(machine.parameters()))
    assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert len(found) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(machine.chain, rbm.sampled(machine.hidden_mean(v).detach(), draws[3], "bernoulli"))


def test_decay_and_sparsity_add_to_the_gradient() -> None:
    machine, x = _machine(6, 4), torch.rand(8, 6).round()
    draws = rbm.drawn(machine, 8, 1, persistent=False, generator=torch.Generator().manual_seed(2))
    plain, sparse = [], []
    for into, options in ((plain, {}), (sparse, {"decay": 0.1, "sparsity": 0.2, "sparsity_cost": 0.5})):
        rbm.contrast(machine, rbm.Rows(x, draws), rbm.How(**options))  # type: ignore[arg-type]
        into += [machine.weight.grad.clone(), machine.visible_bias.grad.clone(), machine.hidden_bias.grad.clone()]  # type: ignore[union-attr]
    assert torch.allclose(sparse[0] - plain[0], 0.1 * machine.weight.detach(), atol=1e-6)
    assert torch.equal(sparse[1], plain[1])
    assert torch.allclose(sparse[2] - plain[2], 0.5 * (machine.hidden_mean(x).mean(0) - 0.2).detach(), atol=1e-6)


def test_a_sweep_is_its_steps_one_after_another() -> None:
    machine, twin = _machine(6, 4), _machine(6, 4)
    generator, how = torch.Generator().manual_seed(3), rbm.How(persistent=True, decay=0.01)
    rows = [rbm.Rows(torch.rand(8, 6), rbm.drawn(machine, 8, 1, persistent=True, generator=generator)) for _ in range(5)]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.5)
    for one in rows:
        gap = rbm.contrast(twin, one, how)
        optimizer.step()
    before = machine.weight.clone()
    found, last = rbm.sweep(machine, Rbm(6, 4, chains=5), rows, how, lr=0.1, momentum=0.5)
    assert torch.equal(machine.weight, before)
    assert torch.equal(machine.chain, twin.chain)
    assert gap is not None
    assert torch.allclose(last, gap, atol=1e-5)
    for ours, theirs, gradient in zip(machine.parameters(), twin.parameters(), found, strict=True):
        assert torch.allclose(ours - 0.1 * gradient, theirs, atol=1e-5)


@pytest.mark.parametrize(("how", "lr", "steps", "wanted"), [(rbm.How(), 0.1, 500, -1.0), (rbm.How(5, persistent=True), 0.05, 600, -1.25)])
def test_learning_brings_the_likelihood_of_a_small_machine_up(how: rbm.How, lr: float, steps: int, wanted: float) -> None:
    torch.manual_seed(0)
    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(20, 1)  # at best -log 2; independent units give -6 log 2
    machine, generator = Rbm(6, 4, chains=40), torch.Generator().manual_seed(0)
    machine.start(x.mean(0))

    def likelihood() -> float:
        return float(-machine.free_energy(x).detach().mean()) - rbm_likelihood.exact_log_partition(machine)

    assert likelihood() == pytest.approx(-6 * math.log(2), abs=0.01)
    optimizer = torch.optim.SGD(machine.parameters(), lr=lr)
    for _ in range(steps):
        draws = rbm.drawn(machine, len(x), how.k, persistent=how.persistent, generator=generator)
        rbm.contrast(machine, rbm.Rows(x, draws), how)
        optimizer.step()
    assert wanted < likelihood() < -math.log(2)


def test_an_unrolled_network_begins_as_its_machines_are() -> None:
    torch.manual_seed(0)
    net = DeepBelief([6, 5, 3], visible_units="bernoulli", linear_code=True, chains=2, unroll=True)
    net.unroll()
    x = torch.rand(4, 6)
    code = net.means(x, 2)
    assert torch.allclose(torch.sigmoid(net(x)), net.down(code, 2), atol=1e-6)
    assert net.machine(1).hidden_units == "gaussian"
    assert net.dream(3, 4, torch.Generator().manual_seed(0)).shape == (3, 6)
