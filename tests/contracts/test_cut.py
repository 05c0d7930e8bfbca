"""Every architecture is cut where prefix + tail equals the whole model, and refused with a sentence where it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tiny_models import IMAGE_MODELS, LAYERS, SOUND_MODELS, TEXT_MODELS, tiny_batch, tiny_model
from warmstart.core.errors import CutRefused
from warmstart.engine.cut import Tail, Trunk, find_trunk, observe, prefix, prove

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM in transformers

CUTTABLE = [name for name in TEXT_MODELS | IMAGE_MODELS | SOUND_MODELS if name != "albert"]
PRECISIONS = [torch.float32, torch.bfloat16]


def trunk_of(model: nn.Module) -> Trunk:
    trunk = find_trunk(model)
    assert trunk is not None
    return trunk


def some_cuts(trunk: Trunk) -> list[int]:
    return sorted({0, 1, trunk.n_blocks // 2, trunk.n_blocks - 1, trunk.n_blocks})


def real(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The positions that are not padding."""
    mask = batch.get("attention_mask")
    return output[mask.bool()] if mask is not None and mask.shape == output.shape[:2] else output


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", CUTTABLE)
@torch.no_grad()
def test_a_proved_cut_is_exact_on_another_batch(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name, dtype=dtype)
    trunk = trunk_of(model)
    other = tiny_batch(name, dtype=dtype, seed=1)
    whole = model(**other)
    for cut in some_cuts(trunk):
        proof = prove(model, trunk, tiny_batch(name, dtype=dtype), cut)
        assert (proof.ok, proof.cut) == (True, cut), proof.reason
        tail, hidden = Tail(model, trunk, cut).eval(), prefix(model, trunk, other, cut)
        for output in (tail(hidden, other), tail(hidden, other)):  # the first call learns the blocks' forms, the second uses them
            assert type(output) is type(whole)
            pair = (real(o.last_hidden_state, other) for o in (output, whole))
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CUTTABLE if name in TEXT_MODELS])
@torch.no_grad()
def test_states_may_be_padded_anew(name: str) -> None:
    """What is stored has no padding, and meets other rows in its next batch."""
    model, batch = tiny_model(name), tiny_batch(name)
    trunk = trunk_of(model)
    cut = trunk.n_blocks // 2
    hidden = prefix(model, trunk, batch, cut) * batch["attention_mask"][..., None]
    length = int(batch["attention_mask"][1:].sum(1).max())
    shorter = {key: value[1:, :length] for key, value in batch.items()}  # rows 1 and 2 without the longest
    output = Tail(model, trunk, cut).eval()(hidden[1:, :length], shorter)
    expected = model(**batch).last_hidden_state[1:, :length]
    torch.testing.assert_close(real(output.last_hidden_state, shorter), real(expected, shorter), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CUTTABLE)
def test_the_tail_has_the_whole_models_gradients_and_the_prefix_none(name: str) -> None:
    model, batch = tiny_model(name), tiny_batch(name)
    trunk = trunk_of(model)
    cut = trunk.n_blocks // 2
    whole = model(**batch).last_hidden_state
    weights = torch.randn(real(whole, batch).shape, generator=torch.Generator().manual_seed(2))
    (real(whole, batch) * weights).mean().backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    with torch.inference_mode():
        hidden = prefix(model, trunk, batch, cut)
    tail = Tail(model, trunk, cut).eval()
    (real(tail(hidden, batch).last_hidden_state, batch) * weights).mean().backward()
    moved = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    after = {f"{trunk.path}.{key}" for key, _ in trunk.blocks.named_parameters() if int(key.split(".")[0]) >= cut}
    before = {f"{trunk.path}.{key}" for key, _ in trunk.blocks.named_parameters()} - after
    assert after & expected.keys() <= moved.keys()
    assert not before & moved.keys()
    assert not any("embed" in key for key in moved)
    assert moved.keys() <= tail.trained(hidden, batch).keys()  # which also holds a pooler, when the model returns its output
    for key, gradient in moved.items():
        assert (gradient - expected[key]).norm() <= 1e-4 * expected[key].norm() + 1e-6, key


@pytest.mark.parametrize("name", ["bert", "deberta_v2", "gpt2", "t5_encoder", "albert", "resnet"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, batch = tiny_model(name), tiny_batch(name)
    trunk = trunk_of(model)
    trunk.blocks[0].train()  # a mixed mode, as when a part of the model is frozen
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    for cut in some_cuts(trunk):
        prove(model, trunk, batch, cut)
    assert [module.training for module in model.modules()] == modes
    assert [type(module) for module in model.modules()] == classes
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_albert_is_refused_with_a_sentence(dtype: torch.dtype) -> None:
    model = tiny_model("albert", dtype=dtype)
    proof = prove(model, find_trunk(model), tiny_batch("albert"), 1)
    assert not proof.ok
    assert proof.reason == f"the model runs one shared block {LAYERS} times, so it has no blocks to cut between"


@pytest.mark.parametrize("name", ["bert", "albert", "resnet", "llama"])
@torch.inference_mode()
def test_observe_shows_every_point_in_order(name: str) -> None:
    model, batch = tiny_model(name), tiny_batch(name)
    trunk = trunk_of(model)
    states: dict[int, Tensor] = {}
    output = observe(model, trunk, batch, states.__setitem__)
    assert list(states) == list(range(trunk.n_blocks + 1))
    assert torch.equal(output.last_hidden_state, model(**batch).last_hidden_state)
    final = model.norm(states[trunk.n_blocks]) if name == "llama" else states[trunk.n_blocks]
    assert torch.equal(output.last_hidden_state, final)


def test_a_prefix_runs_no_block_after_the_cut() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    trunk = trunk_of(model)
    ran: list[int] = []
    for k, block in enumerate(trunk.blocks):
        block.attention.register_forward_hook(lambda *_, k=k: ran.append(k))
    states: list[int] = []
    assert observe(model, trunk, batch, lambda k, _: states.append(k), stop=2) is None
    assert (states, ran) == ([0, 1, 2], [0, 1])
    ran.clear()
    tail, hidden = Tail(model, trunk, 2), prefix(model, trunk, batch, 2)
    tail(hidden, batch)
    ran.clear()
    tail(hidden, batch)
    assert ran == [2, 3]


def test_hooks_go_when_reduce_fails() -> None:
    model = tiny_model("bert")
    with pytest.raises(ZeroDivisionError):
        observe(model, trunk_of(model), tiny_batch("bert"), lambda k, _: None if k < 2 else 1 // 0)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["bert", "t5_encoder"])
def test_the_first_call_of_a_tail_draws_the_same_random_numbers_as_the_next(name: str) -> None:
    model, batch = tiny_model(name), tiny_batch(name)
    trunk = trunk_of(model)
    hidden = prefix(model, trunk, batch, 2)
    tail = Tail(model, trunk, 2).train()
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(tail(hidden, batch).last_hidden_state)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], tail(hidden, batch).last_hidden_state)  # dropout is on


def test_states_are_taken_in_the_models_precision_and_really_used() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    trunk = trunk_of(model)
    hidden = prefix(model, trunk, batch, 3)
    tail = Tail(model, trunk, 3).eval()
    expected = tail(hidden, batch).last_hidden_state
    rounded = tail(hidden.to(torch.bfloat16), batch).last_hidden_state
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - expected).abs().max() < 0.5
    assert (tail(-hidden, batch).last_hidden_state - expected).abs().max() > 0.5


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x))


class Plain(nn.Module):
    """Four blocks in a row, as they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SkipsAhead(Plain):
    """Block 2 reads what block 0 made."""

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.blocks[0](x)
        x = self.blocks[2](self.blocks[1](x) + first)
        return self.blocks[3](x + first)


class Remembering(Block):
    def forward(self, x: Tensor) -> Tensor:
        self.memory = super().forward(x)
        return self.memory


class RemembersInABlock(Plain):
    """Block 3's input holds what block 0 left in an attribute: right by chance if the same rows went through just before."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[0] = Remembering()

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[2](self.blocks[1](self.blocks[0](x)))
        return self.blocks[3](x + self.blocks[0].memory)


class SharesWeights(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.blocks[3].linear = self.blocks[0].linear


class OutOfOrder(Plain):
    def forward(self, x: Tensor) -> Tensor:
        for k in (1, 0, 2, 3):
            x = self.blocks[k](x)
        return x


class NeedsMore(Plain):
    """Every block makes anew something that the next one cannot do without."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.register_forward_hook(lambda module, args, output: (output, output.mean(-1, keepdim=True)))

    def forward(self, x: Tensor) -> Tensor:
        side = torch.zeros(())
        for block in self.blocks:
            x, side = block(x + side)
        return x


class ReturnsADict(Plain):
    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.register_forward_hook(lambda module, args, output: {0: output})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)[0]
        return x


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SkipsAhead, "read more than the hidden state"),
        (RemembersInABlock, "read more than the hidden state"),
        (SharesWeights, "share weights"),
        (OutOfOrder, "in the order [1, 0, 2, 3]"),
        (NeedsMore, "does not run when cut (TypeError: "),
        (ReturnsADict, "its blocks return dict"),
    ],
)
def test_a_model_that_cannot_be_cut_is_caught(kind: type[nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    batch = {"x": torch.randn(3, 8)}
    plain = Plain().eval()
    assert prove(plain, find_trunk(plain), batch, 2).ok
    model = kind().eval()
    proof = prove(model, find_trunk(model), batch, 2)
    assert not proof.ok
    assert reason in proof.reason


def test_what_has_no_trunk_is_refused() -> None:
    model = nn.Linear(3, 3)
    assert find_trunk(model) is None
    assert not prove(model, find_trunk(model), {"input": torch.zeros(2, 3)}, 0).ok


def test_a_trunk_is_the_list_of_like_blocks() -> None:
    wrapped = nn.Sequential(nn.Linear(3, 8), Plain(), nn.LayerNorm(8))  # more parameters, but not a run of like blocks
    trunk = trunk_of(wrapped)
    assert (trunk.path, trunk.n_blocks) == ("1.blocks", 4)
    bare = nn.Sequential(Block(), Block(), Block()).eval()  # the model is its own trunk
    assert trunk_of(bare) == Trunk("", bare)
    assert prove(bare, trunk_of(bare), {"input": torch.randn(2, 8)}, 2).ok


def test_a_cut_outside_the_trunk_is_refused() -> None:
    model, batch = Plain(), {"x": torch.zeros(2, 8)}
    with pytest.raises(CutRefused, match="cut 5 is not a point"):
        Tail(model, trunk_of(model), 5)
    assert "not a point" in prove(model, find_trunk(model), batch, -1).reason
