"""Predict the next token: a causal language model, which also writes text (Radford et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set. None: by the dial, ``--size`` or ``--budget``, or from the body that is gone on from."""

    tokenizer: Literal["bpe", "characters"] = "bpe"
    "bpe: byte-level, trained on the corpus, so that nothing is unknown; characters: those that occur"
    vocabulary: int | None = None
    "tokens of the vocabulary at most; None: one for 400 characters of the corpus, from 512 to 32,768"
    depth: int | None = None
    "blocks"
    width: int | None = None
    "features of a token"
    heads: int | None = None
    "attention heads; None: 32 features each up to width 256, 64 above"
    context: int | None = None
    "tokens that a prediction can look back to"
    positions: Literal["rotary", "learned"] = "rotary"
    "rotary: relative, with RMSNorm; learned: one vector each, with LayerNorm, as in GPT-2"
    mlp: Literal["relu2", "swiglu", "gelu"] = "relu2"
    "activation of the feed-forward layers: squared ReLU, gated SiLU, or GELU"
    qk_norm: bool = True
    "RMSNorm on queries and keys"
    tied: bool = True
    "one table for input and output embeddings"
    batch: int | None = None
    "windows of a step, over all processes"
    steps: int | None = None
    "steps of training; 0 gives the body with random weights"
    optimizer: Literal["muon", "adamw"] = "muon"
    "muon: for the matrices of the blocks, with AdamW for everything else; adamw: for all"
    muon_lr: float | None = None
    "peak learning rate of Muon"
    lr: float | None = None
    "peak learning rate of AdamW"
    weight_decay: float = 0.0
    "decoupled weight decay of matrices and embeddings"
    beta2: float = 0.95
    "AdamW's decay of the second moment"
    warmup: float = 0.05
    "share of the steps over which the learning rate rises"
    cooldown: float = 0.95
    "share of the steps, at the end, over which it falls"
    decay: Literal["linear", "cosine"] = "linear"
    "how it falls"
    floor: float = 0.0
    "where it ends, as a share of its peak"
    held: float = 0.1
    "share of the corpus that is set aside where no validation data are given"


class Part:
    """Cross entropy of the next token over windows of a stream of documents."""

    name = "gpt"
    modalities = ("text",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        """See ``Objective.prepare``."""
        from warmstart.engine import causal_plan

        return causal_plan.prepare(self.options, setting)
