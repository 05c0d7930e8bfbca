"""Short attention: what the fused kernel gives, on every architecture that it touches, and rows that do not depend on their company."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as fused

from tiny_models import TEXT_MODELS, tiny_batch, tiny_model
from warmstart.engine import network, short_attention


class Plain(torch.nn.Module):
    is_causal = False


@pytest.mark.parametrize("length", [5, short_attention.LONGEST, short_attention.LONGEST + 1])
@pytest.mark.parametrize("masked", [False, True])
def test_the_formula(length: int, masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, length, 8).unbind(0)
    mask = torch.ones(2, 1, length, length, dtype=torch.bool)
    mask[1, :, :, -2:] = False
    found, _ = short_attention.attend(Plain(), query, key, value, mask if masked else None, scaling=0.3)
    expected = fused(query, key, value, attn_mask=mask if masked else None, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_causal_attention_stays_causal() -> None:
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    found, _ = short_attention.attend(Plain(), query, key, value, None, is_causal=True)
    torch.testing.assert_close(found, fused(query, key, value, is_causal=True).transpose(1, 2))


@pytest.mark.parametrize("name", list(TEXT_MODELS))
@torch.inference_mode()
def test_every_architecture_gives_the_same_states(name: str) -> None:
    plain = tiny_model(name).eval()
    short, batch = copy.deepcopy(plain), tiny_batch(name)
    short_attention.install(short)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(network.last_state(short(**batch))[real], network.last_state(plain(**batch))[real], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_row_does_not_depend_on_its_company() -> None:
    body = tiny_model("bert").to(torch.bfloat16).eval()
    short_attention.install(body)
    assert body.config._attn_implementation == short_attention.NAME
    ids = torch.randint(5, 99, (7, 12), generator=torch.Generator().manual_seed(0))
    together = network.last_state(body(input_ids=ids))
    assert torch.equal(together[2:4], network.last_state(body(input_ids=ids[2:4])))
