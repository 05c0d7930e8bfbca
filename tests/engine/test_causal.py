"""Causal models: every combination of features is a transformers architecture, computed fast to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F

from warmstart.core.errors import BackboneNotFound, BadOption
from warmstart.engine import causal, store

SHAPE: dict[str, Any] = {"vocabulary": 20, "width": 16, "depth": 2, "heads": 2, "context": 12}
FEATURES: dict[str, dict[str, Any]] = {
    "gpt2": {"positions": "learned", "mlp": "gelu", "qk_norm": False},
    "llama": {"mlp": "swiglu", "qk_norm": False},
    "qwen3": {"mlp": "swiglu"},
    "arcee": {"mlp": "gelu", "qk_norm": False, "tied": False},
    "apertus": {},
}


def _model(name: str) -> Any:
    """With weights that are not zero anywhere."""
    model = causal.create(causal.configuration(**SHAPE, **FEATURES[name]), seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", FEATURES)
def test_loss_and_gradients_are_those_of_transformers(name: str) -> None:
    model = _model(name)
    assert model.config.model_type == name
    ours = causal.Causal(model)
    assert ours.fast
    tokens = torch.randint(20, (3, 13))
    loss = ours(tokens)["loss"]
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    theirs = F.cross_entropy(model(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    theirs.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-5)
    for n, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[n], parameter.grad, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens)["rows"].sum(), loss)


@pytest.mark.parametrize("name", FEATURES)
def test_saved_folders_open_in_transformers_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model = _model(name)
    store.save_transformers(model, tmp_path)
    ids = torch.randint(20, (2, 12))
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened(input_ids=ids).logits, model(input_ids=ids).logits)
        found = causal.states(model, ids)
        torch.testing.assert_close(opened(input_ids=ids).logits, found @ model.get_output_embeddings().weight.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(store.load_body(tmp_path)(input_ids=ids).last_hidden_state, found, rtol=1e-4, atol=1e-4)


def test_what_the_fast_path_does_not_know_runs_the_models_own_code() -> None:
    torch.manual_seed(0)
    config = causal.configuration(**SHAPE, mlp="swiglu", qk_norm=False)
    config.num_key_value_heads = 1
    model = causal.create(config, seed=0)
    ours = causal.Causal(model)
    assert not ours.fast
    tokens = torch.randint(20, (2, 5))
    expected = F.cross_entropy(model(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(ours(tokens)["loss"], expected)


def test_features_that_fit_no_architecture_are_refused() -> None:
    with pytest.raises(BadOption, match="GPT-2 has neither"):
        causal.configuration(**SHAPE, positions="learned")
    with pytest.raises(BadOption, match="heads = 3"):
        causal.configuration(**{**SHAPE, "heads": 3})


def test_every_parameter_is_in_one_list() -> None:
    for name in ("gpt2", "arcee"):
        model = _model(name)
        hidden, embedded, rest = causal.matrices(model)
        assert len(hidden) + len(embedded) + len(rest) == len(list(model.parameters()))
        assert all(p.ndim == 2 for p in hidden)
        assert len(embedded) == 2
        assert all(p.ndim == 1 for p in rest)


def test_only_causal_models_are_opened(tmp_path: Path) -> None:
    masked = transformers.BertForMaskedLM(
        transformers.BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    store.save_transformers(masked, tmp_path)
    with pytest.raises(BackboneNotFound, match="no causal architecture"):
        store.load_causal(tmp_path)
