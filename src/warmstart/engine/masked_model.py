"""A body with its masked-language-model head, computed at the masked positions alone, and a head for the second task of BERT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine import store


class MaskedModel(nn.Module):
    """Predicts hidden words, and whether B follows A.

    The head of transformers' masked model is applied to the states at the masked positions only: with 15 % of the tokens masked and a
    large vocabulary, logits at every position would cost more than the body. It is kept with the body taken out, so that it
    can be fed with states as if they were embeddings; ``whole`` puts the two together again.
    """

    def __init__(self, model: nn.Module, *, second: bool) -> None:
        super().__init__()
        self.prefix: str = model.base_model_prefix  # type: ignore[assignment]
        body = getattr(model, self.prefix)
        config: Any = model.config
        self.config = config
        self.tied = _tied(model, self.prefix)
        setattr(model, self.prefix, _Given())
        self.body, self.head = body, model
        self.typed = int(getattr(self.config, "type_vocab_size", 0) or 0) > 1
        self.is_bert = hasattr(model, "cls") and hasattr(model.cls, "seq_relationship")
        self.second: nn.Module | None = None
        if second and not self.is_bert:
            self.second = nn.Linear(config.hidden_size, 2)
            nn.init.normal_(self.second.weight, std=0.02)
            nn.init.zeros_(self.second.bias)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        follows: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses in nats, unreduced.

        Args:
            input_ids: (B, T).
            positions: (M,) of the masked tokens, in the flattened (B * T).
            targets: (M,) the ids that belong there.
            token_type_ids: (B, T); only for a body that has such embeddings.
            attention_mask: (B, T), or None where nothing is padded.
            follows: (B,) 0: B follows A, 1: it does not, -100: there is no B.

        Returns:
            ``words (M,)``; ``second (B,)``, zero where there is no B; and in evaluation mode what was right: ``words_right (M,)`` and
            ``second_right (B,)``.
        """
        types = {"token_type_ids": token_type_ids} if self.typed and token_type_ids is not None else {}
        out = self.body(input_ids=input_ids, attention_mask=attention_mask, **types)
        states = out[0]  # (B, T, D)
        logits = self.words(states.flatten(0, 1)[positions]).float()  # (M, V)
        found = {"words": functional.cross_entropy(logits, targets, reduction="none")}
        if not self.training:
            found["words_right"] = logits.argmax(-1) == targets
        if follows is not None:
            answers = self.answers(states, out).float()  # (B, 2)
            found["second"] = functional.cross_entropy(answers, follows, reduction="none", ignore_index=-100)
            if not self.training:
                found["second_right"] = answers.argmax(-1) == follows
        return found

    def words(self, states: Tensor) -> Tensor:
        """Logits (M, V) of the words at states (M, D)."""
        if self.is_bert:
            return self.head.cls.predictions(states)  # type: ignore[union-attr, operator, no-any-return]
        return self.head(inputs_embeds=states[None]).logits[0]  # type: ignore[no-any-return]

    def answers(self, states: Tensor, out: Any) -> Tensor:
        """Logits (B, 2) of the second task, from the body's pooled state where it is BERT, else from the first token's."""
        if self.is_bert:
            return self.head.cls.seq_relationship(out[1])  # type: ignore[union-attr, operator, no-any-return]
        assert self.second is not None  # noqa: S101 - asked for when the model was made
        return self.second(states[:, 0])  # type: ignore[no-any-return]

    def moved(self, *, second: bool) -> list[tuple[str, nn.Parameter]]:
        """The parameters that training reaches, each once, by name; without a second task its head and BERT's pooler stay."""
        idle = () if second else ("body.pooler.", "head.cls.seq_relationship.")
        return [(name, p) for name, p in self.named_parameters() if not name.startswith(idle or ("\0",))]

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The model as transformers knows it, body in place, for as long as the block lasts."""
        setattr(self.head, self.prefix, self.body)
        try:
            yield self.head
        finally:
            setattr(self.head, self.prefix, _Given())

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors``: ``AutoModel`` opens the body, the masked model's class all of it."""
        store.quiet_transformers()
        with self.whole() as model:
            store.save_transformers(model, folder)


class _Given(nn.Module):
    """Stands where the body was: gives back, as its states, what it is given as embeddings."""

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **others: object) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


def fresh(*, vocabulary: int, width: int, depth: int, heads: int, context: int, pad: int) -> nn.Module:
    """BERT (Devlin et al. 2019) with random weights and both its heads; draws from torch's global generator."""
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=context,
        pad_token_id=pad,
    )
    model = BertForPreTraining(config)
    assert isinstance(model, nn.Module)  # noqa: S101 - narrows the untyped return value
    return model


def opened(folder: Path) -> tuple[nn.Module, bool]:
    """The masked model in a folder around the folder's own body (with its pooler, if it has one), and whether its head was there.

    A head that is missing starts from the embeddings, to which its last layer is tied, and draws the rest from torch's global generator.

    Raises:
        BackboneNotFound: It cannot be opened.
    """
    model, missing = store.load_masked(folder)
    prefix: str = model.base_model_prefix  # type: ignore[assignment]
    tied = _tied(model, prefix)
    setattr(model, prefix, store.load_body(folder))
    body = dict(getattr(model, prefix).named_parameters())
    for name, source in tied.items():
        place, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(place), leaf, body[source])
    return model, not any("predictions" in name or "head" in name or "vocab_" in name for name in missing)


@torch.no_grad()
def start_at_frequencies(model: nn.Module, counts: Tensor) -> bool:
    """Let the bias of the word head begin at the logarithm of each word's frequency: what training finds first in any case.

    Args:
        model: A masked model of transformers.
        counts: (V,) how often each id occurs.

    Returns:
        Whether the head has such a bias.
    """
    layer = model.get_output_embeddings()  # type: ignore[operator]
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor) or len(bias) < len(counts):
        return False
    padded = torch.zeros(len(bias), dtype=torch.float64)
    padded[: len(counts)] = counts.double()
    bias.copy_(torch.log((padded + 0.1) / (padded + 0.1).sum()))
    return True


def _tied(model: nn.Module, prefix: str) -> dict[str, str]:
    """Parameters of the head that are the body's own: name in the model to name in the body."""
    body = {id(p): name for name, p in getattr(model, prefix).named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: body[id(p)] for name, p in every if id(p) in body and not name.startswith(f"{prefix}.")}
