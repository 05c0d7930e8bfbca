"""Masked words and sentence order (BERT): a text encoder from plain text, or any masked model trained on with --from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set; None: by the size, the budget and the corpus."""

    width: int | None = None
    "features of a token (D); a multiple of 64, or of heads"
    depth: int | None = None
    "layers"
    heads: int | None = None
    "attention heads; None: width / 64"
    context: int | None = None
    "tokens of a row, and the longest text that the body will take"
    vocabulary: int | None = None
    "entries of the WordPiece vocabulary; None: 8 times the square root of the characters of the corpus, at most 30,528"
    lowercase: bool = True
    "lower-case the text and strip accents"
    tokenizer: str | None = None
    "folder of a tokenizer to use in place of one that is trained on the corpus"
    second: Literal["auto", "nsp", "sop", "none"] = "auto"
    "second task: nsp: does B follow A; sop: are A and B in order; none; auto: nsp where the documents have several sentences"
    mask: float = 0.15
    "share of the tokens that are hidden: 80 % of them by the mask, 10 % by another token, 10 % left as they are"
    whole_word: bool = False
    "hide whole words, not single pieces of them"
    batch: int | None = None
    "tokens of a step, over all processes"
    at_once: int | None = None
    "tokens that are computed at a time; None: 4,096 on a CPU, 65,536 on a GPU"
    lr: float | None = None
    "peak learning rate"
    warmup: float = 0.06
    "share of the steps in which the learning rate rises"
    weight_decay: float = 0.01
    "decoupled weight decay of matrices"
    dropout: float | None = None
    "None: 0 while the corpus is seen fewer than 40 times, else 0.1"
    steps: int | None = None
    "None: by the budget; without one, 20 tokens a parameter, but the corpus at most 40 times"
    held: float = 0.05
    "share of the documents that is set aside to measure, where no --validation is given"


class Part:
    """Bidirectional encoder trained to fill gaps."""

    name = "bert"
    modalities: tuple[str, ...] = ("text",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        from warmstart.engine import masked_plan

        return masked_plan.prepare(self.options, setting)
