"""Body and head: from a cut as whole, a temperature folded in, and every parameter in one group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tiny_models import LAYERS, WIDTH, tiny_batch, tiny_model
from warmstart.engine import cut, network, predictor, store
from warmstart.engine.network import Network, PooledHead

NAMES = ["bert", "roberta", "distilbert", "mpnet", "deberta_v2", "modernbert", "gpt2"]
POINTS = (0, 2, LAYERS)


def pooled_head(seed: int = 0, points: tuple[int, ...] = POINTS, classes: int = 3) -> PooledHead:
    random = torch.Generator().manual_seed(seed)
    n = len(points) * WIDTH
    weight, shift = torch.randn(classes, n, generator=random), torch.randn(n, generator=random)
    return PooledHead(points, weight, torch.randn(classes, generator=random), shift, torch.rand(n, generator=random))


def net_of(name: str, head: str) -> Network:
    body = tiny_model(name)
    if head == "pooled":
        return Network(body, pooled_head()).eval()
    torch.manual_seed(0)
    return Network(store.with_native_head(body, ["a", "b", "c"], "single_label_classification"), None).eval()


@pytest.mark.parametrize("head", ["pooled", "native"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_from_a_cut_as_whole(name: str, head: str) -> None:
    net, batch = net_of(name, head), tiny_batch(name)
    whole = net(batch)
    assert whole.shape == (3, 3)
    assert whole.std() > 1e-3
    assert net.trunk is not None
    states: list[Tensor] = []
    plain = net.body if head == "pooled" else getattr(net.body, str(net.body.base_model_prefix))
    pooled = network.pooled_states(plain, cut.find_trunk(plain), batch, visit=lambda _, state: states.append(state))
    for point in (1, 2, LAYERS):
        tail = cut.Tail(net.body, net.trunk, point).eval()
        found = net.from_cut(tail, states[point], pooled[:, :point], batch)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_pooled_states_are_means_over_real_tokens() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    expected = model(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"].bool()
    found = network.pooled_states(model, cut.find_trunk(model), batch)
    assert found.shape == (3, LAYERS + 1, WIDTH)
    for point, state in enumerate(expected):
        for row in range(3):
            torch.testing.assert_close(found[row, point], state[row][mask[row]].mean(0))
    part = network.pooled_states(model, cut.find_trunk(model), batch, stop=2)
    assert torch.equal(part, found[:, :3])


def test_the_last_point_is_after_the_final_norm() -> None:
    model, batch = tiny_model("gpt2"), tiny_batch("gpt2")
    with torch.no_grad():
        found = network.pooled_states(model, cut.find_trunk(model), batch)
        last = network.masked_mean(model(**batch).last_hidden_state, batch["attention_mask"])
    assert torch.equal(found[:, -1], last)


@torch.no_grad()
def test_a_pooled_head_standardises_and_multiplies() -> None:
    head = pooled_head(points=(1, 3))
    x = torch.randn(2, 5, WIDTH)
    joined = torch.cat([x[:, 1], x[:, 3]], 1)
    expected = ((joined - head.shift) * head.scale) @ head.weight.T + head.bias
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("head", ["pooled", "native"])
@pytest.mark.parametrize("name", [*NAMES, "electra"])
@torch.no_grad()
def test_dividing_by_the_temperature(name: str, head: str) -> None:
    net, batch = net_of(name, head), tiny_batch(name)
    whole = net(batch)
    with predictor.divided(net, 2.5, 3):
        torch.testing.assert_close(net(batch), whole / 2.5, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(batch), whole)  # to the last bit


@pytest.mark.parametrize("name", [*NAMES, "t5_encoder", "resnet", "albert"])
def test_groups_by_depth_hold_every_parameter_once(name: str) -> None:
    model = tiny_model(name)
    trunk = cut.find_trunk(model)
    groups = network.groups_by_depth(model, trunk)
    found = [id(p) for group in groups for p in group]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    if trunk is not None:
        assert len(groups) == trunk.n_blocks + 2
        assert [id(p) for p in groups[1]] == [id(p) for p in list(trunk.blocks)[-1].parameters()]
        embeddings = {id(p) for n, p in model.named_parameters() if n.startswith("embeddings.")}
        assert embeddings <= {id(p) for p in groups[-1]}


def test_only_the_chosen_parameters_take_gradients() -> None:
    model = tiny_model("bert")
    chosen = list(model.parameters())[3:5]
    chosen[0].requires_grad_(False)
    with network.only_trainable(model, chosen):
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in chosen}
    assert sum(not p.requires_grad for p in model.parameters()) == 1
