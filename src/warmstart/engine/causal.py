"""Causal language models of transformers, computed fast: their own parameters, our order of operations.

A model is a ``transformers`` one from the first step, so what is saved opens with ``AutoModelForCausalLM``, and a pre-trained one
can be gone on with. For the families below the forward pass is done here (joined products, hand-written gradients), once it has
proved to give the same as the model's own code, and without dropout; any other model runs its own code.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from warmstart.core.errors import BadOption
from warmstart.engine import fused
from warmstart.engine.seeds import seeded

NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "qwen3": ("input_layernorm", "post_attention_layernorm"),
    "arcee": ("input_layernorm", "post_attention_layernorm"),
    "apertus": ("attention_layernorm", "feedforward_layernorm"),
}
"""Families with rotary positions and RMSNorm, with the names of their blocks' two norms."""
TOLERANCE = 1e-4
"""Largest difference from the model's own states, relative to the largest of them, in float32."""


class Causal(nn.Module):
    """A causal language model and its loss, cross entropy of the next token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.fast = _proven(model)

    def call_blocks(self) -> None:
        """From now on every block is called as a module: fused operations reach into it, where the weights may not be."""
        self.fast = False

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """``loss``: the sum over all ``B T`` predictions in ``tokens (B, T + 1)``, float32; without gradients also ``rows (B,)``."""
        states = self.states(tokens[:, :-1]).flatten(0, 1)
        weight = self.model.get_output_embeddings().weight  # type: ignore[operator]
        targets = tokens[:, 1:].flatten()
        if torch.is_grad_enabled():
            return {"loss": fused.cross_entropy(states, weight, targets)}
        rows = fused.token_losses(states, weight, targets).view(len(tokens), -1).sum(1)
        return {"loss": rows.sum(), "rows": rows}

    def states(self, ids: Tensor) -> Tensor:
        """What the output embedding is applied to: (B, T, D)."""
        return states(self.model, ids) if self.fast else _own_states(self.model, ids)


def states(model: nn.Module, ids: Tensor) -> Tensor:
    """Last hidden states ``(B, T, D)`` of a model of a known family for ``ids (B, T)``, positions from 0."""
    if model.config.model_type == "gpt2":  # type: ignore[union-attr]
        return _gpt2(model.transformer, ids)
    return _rotary(model.model, ids)


def _own_states(model: nn.Module, ids: Tensor) -> Tensor:
    found: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[operator]
    return found


@torch.no_grad()
def _proven(model: Any) -> bool:
    """Whether ``states`` gives what the model itself gives, on random tokens."""
    config = model.config
    if config.model_type not in (*NORMS, "gpt2"):
        return False
    ids = torch.randint(config.vocab_size, (2, min(64, config.max_position_embeddings)), generator=torch.Generator().manual_seed(0))
    ids = ids.to(next(model.parameters()).device)
    training = model.training
    model.eval()
    try:
        expected, found = _own_states(model, ids), states(model, ids)
    except (AttributeError, RuntimeError):  # grouped keys, a window, another activation: whatever the fast path does not know
        return False
    finally:
        model.train(training)
    return bool((expected - found).abs().max() <= TOLERANCE * expected.abs().max())


def _rotary(body: Any, ids: Tensor) -> Tensor:
    config = body.config
    first, second = NORMS[config.model_type]
    x = F.embedding(ids, body.embed_tokens.weight)  # (B, T, D)
    head_width = body.layers[0].self_attn.head_dim
    tables = fused.rotary_tables(ids.shape[1], head_width, config.rope_parameters["rope_theta"], x.dtype, x.device)
    for block in body.layers:
        x = x + _rotary_attention(block.self_attn, _norm(getattr(block, first), x), tables)
        x = x + _mlp(block.mlp, _norm(getattr(block, second), x), config.hidden_act)
    return _norm(body.norm, x)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return fused.rms_norm(x, norm.weight, eps=norm.variance_epsilon)


def _joined(x: Tensor, *layers: nn.Linear) -> Tensor:
    """The outputs of several linear layers on the same input, in one product."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return F.linear(x, torch.cat([*(layer.weight for layer in layers)]), torch.cat([*biases]) if biases else None)


def _rotary_attention(attention: Any, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    b, t, _ = x.shape
    width = attention.head_dim
    mixed = _joined(x, attention.q_proj, attention.k_proj, attention.v_proj).view(b, t, -1, width)
    heads = mixed.shape[2] // 3
    both, value = mixed.split([2 * heads, heads], 2)  # type: ignore[no-untyped-call]
    if hasattr(attention, "q_norm"):
        weight = torch.stack([attention.q_norm.weight, attention.k_norm.weight]).repeat_interleave(heads, 0)  # (2 H, D / H)
        both = fused.rms_norm(both, weight, eps=attention.q_norm.variance_epsilon)
    query, key = fused.rotate(both, *tables).transpose(1, 2).chunk(2, 1)
    attended = fused.attend(query, key, value.transpose(1, 2))  # (B, H, T, D / H)
    result: Tensor = attention.o_proj(attended.transpose(1, 2).reshape(b, t, -1))
    return result


def _mlp(mlp: Any, x: Tensor, activation: str) -> Tensor:
    if hasattr(mlp, "gate_proj"):
        gate, up = _joined(x, mlp.gate_proj, mlp.up_proj).chunk(2, -1)
        x = ACT2FN[activation](gate) * up
    else:
        x = ACT2FN[activation](mlp.up_proj(x))
    result: Tensor = mlp.down_proj(x)
    return result


def _gpt2(body: Any, ids: Tensor) -> Tensor:
    b, t = ids.shape
    x = F.embedding(ids, body.wte.weight) + body.wpe.weight[:t]
    for block in body.h:
        mixed = block.attn.c_attn(block.ln_1(x)).view(b, t, 3 * block.attn.num_heads, -1).transpose(1, 2)
        query, key, value = mixed.chunk(3, 1)
        x = x + block.attn.c_proj(fused.attend(query, key, value).transpose(1, 2).reshape(b, t, -1))
        x = x + block.mlp.c_proj(block.mlp.act(block.mlp.c_fc(block.ln_2(x))))
    result: Tensor = body.ln_f(x)
    return result


def configuration(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    context: int,
    positions: Literal["rotary", "learned"] = "rotary",
    mlp: Literal["relu2", "swiglu", "gelu"] = "relu2",
    qk_norm: bool = True,
    tied: bool = True,
    end: int | None = None,
) -> Any:
    """The transformers configuration that has these features.

    Learned positions and LayerNorm: GPT-2. Rotary positions and RMSNorm: Qwen3 or, without norms on queries and keys, Llama with SwiGLU;
    Apertus or Arcee with one activation between two matrices.

    Raises:
        BadOption: No architecture has them together, or the heads do not share the width.
    """
    if width % heads or (width // heads) % 2:
        raise BadOption(f"width = {width} for heads = {heads}", "an even width for each head", "give for example width=128, heads=4")
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None, "vocab_size": vocabulary, "tie_word_embeddings": tied}
    if positions == "learned":
        if qk_norm or mlp == "swiglu":
            given = "qk_norm" if qk_norm else "mlp=swiglu"
            raise BadOption(f"positions=learned with {given}", "GPT-2 has neither", "add objective.qk_norm=false and objective.mlp=gelu")
        sizes = {"n_embd": width, "n_layer": depth, "n_head": heads, "n_positions": context}
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2Config(**special, **sizes, **drops, activation_function=mlp)
    common = {
        "hidden_size": width,
        "intermediate_size": round(8 * width / 3 / 32) * 32 if mlp == "swiglu" else 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": context,
        "hidden_act": "silu" if mlp == "swiglu" else mlp,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if mlp == "swiglu":
        kind = transformers.Qwen3Config if qk_norm else transformers.LlamaConfig
        return kind(**special, **common, head_dim=width // heads)
    return (transformers.ApertusConfig if qk_norm else transformers.ArceeConfig)(**special, **common)


def create(config: Any, *, seed: int) -> nn.Module:
    """A model with fresh weights. GPT-2 begins as its authors had it; the others with zeros in the matrices that write to the residual
    stream, so that every block begins as the identity (Zhang et al. 2019)."""
    with seeded(seed):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if config.model_type in NORMS:
            for name, weight in model.named_parameters():
                if weight.ndim == 2 and name.endswith(("o_proj.weight", "down_proj.weight")):
                    nn.init.zeros_(weight)
                elif weight.ndim == 2 and ".layers." in name:
                    nn.init.uniform_(weight, -((0.75 / weight.shape[1]) ** 0.5), (0.75 / weight.shape[1]) ** 0.5)
    assert isinstance(model, nn.Module)  # noqa: S101 - narrows the untyped return value
    return model


def matrices(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """The parameters as hidden matrices, embeddings (of tokens, positions, and the output), and the rest (norms, biases)."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables.add(id(model.get_output_embeddings().weight))  # type: ignore[operator]
    sorts: tuple[list[nn.Parameter], ...] = ([], [], [])
    for parameter in model.parameters():
        sorts[1 if id(parameter) in tables else 0 if parameter.ndim == 2 else 2].append(parameter)
    return sorts[0], sorts[1], sorts[2]


def flops_per_token(model: nn.Module, context: int) -> float:
    """Floating-point operations of a training step by token: 6 a weight of a product, and attention over half of ``context`` on average."""
    config: Any = model.config
    hidden, _, _ = matrices(model)
    weights: int = sum(p.numel() for p in hidden) + model.get_output_embeddings().weight.numel()  # type: ignore[operator]
    return 6.0 * weights + 6.0 * int(config.num_hidden_layers) * int(config.hidden_size) * context
