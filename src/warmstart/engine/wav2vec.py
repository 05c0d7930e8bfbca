"""Masked prediction for sound: a convolutional feature encoder and a transformer that says what stands in masked frames.

After wav2vec 2.0 (Baevski et al. 2020). Two kinds of targets: codes that were computed beforehand, predicted by cross entropy (as HuBERT
and BEST-RQ do), or a quantizer that learns with the body, and a contrastive loss. Both are written so that every random choice comes with
the batch, drawn for each window by itself: then the loss of a batch is the same however its windows are spread over processes.

Shapes: B windows, S samples, T frames, M masked frames of the batch, D width, G groups, V codes a group, K negatives, P projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

FRAME_SECONDS = 0.02
FIRST_STRIDE, FIRST_FIELD = 5, 10
SIMILARITY_TEMPERATURE = 0.1
DIVERSITY = 0.1
"""Weight of the diversity loss (Baevski et al. 2020, section 4.2)."""
BLOCKS = 16
"""The diversity of codes is measured within sixteenths of a batch: so its mean is the same for any number of processes up to 16."""
GUMBEL = (2.0, 0.5)
"""Temperature of the Gumbel softmax at the first step and at the last, falling geometrically."""
UNDEFINED = -1e4


@dataclass(frozen=True)
class Masked:
    """A share of a batch: ``wave (B, S)`` with ``attention_mask (B, S)``; ``mask (B, T)`` is true at masked frames.

    ``targets (M,)`` are codes of the masked frames, row by row, and ``row (M,)`` their windows. For the quantizer ``noise (M, G * V)`` is
    from a Gumbel distribution, ``negatives (M, K)`` are positions among the M, and ``block (M,)`` says in which of the ``blocks`` parts of
    the whole batch a frame is. ``total`` counts masked frames of the whole batch, ``world`` its shares; ``temperature`` is that of the
    Gumbel softmax, ``frames`` the real frames of this share.
    """

    wave: Tensor
    attention_mask: Tensor
    mask: Tensor
    row: Tensor
    targets: Tensor | None
    noise: Tensor | None
    negatives: Tensor | None
    block: Tensor
    blocks: int
    total: int
    world: int
    temperature: float
    frames: int


def body_config(*, width: int, depth: int, rate: int, dropout: float = 0.0) -> dict[str, Any]:
    """Values for ``transformers.Wav2Vec2Config``: frames of about 20 ms, layer norm everywhere (so that padding changes nothing), channels
    of the convolutions from a quarter of the width up to all of it, as time gets shorter."""
    halvings = max(1, round(float(np.log2(rate * FRAME_SECONDS / FIRST_STRIDE))))
    share = np.linspace(-2, 0, halvings + 1)
    channels = [max(8, round(width * 2**s / 8) * 8) for s in share]
    heads = max(1, width // 64)
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "conv_dim": channels,
        "conv_stride": [FIRST_STRIDE, *[2] * halvings],
        "conv_kernel": [FIRST_FIELD, *[3] * (halvings - 1), 2],
        "conv_bias": True,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": heads * 4 if width % (heads * 4) == 0 else heads,
        "hidden_dropout": dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.0,
        "mask_time_prob": 0.05,
    }


def n_frames(samples: int, config: Any) -> int:
    """Frames that the convolutions make of so many samples; 0 where they are too few."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(0, samples)


def field_and_stride(config: Any) -> tuple[int, int]:
    """Samples that one frame sees, and from one frame to the next."""
    field, stride = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, stride = field + (kernel - 1) * stride, stride * step
    return field, stride


def spans(n: int, *, share: float, span: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which of ``n`` frames are masked: spans of ``span`` frames (no more than a quarter of ``n``) that may overlap, so many that they
    would cover ``share`` of the frames if they did not; at least one, and never all frames: (n,)."""
    span = max(1, min(span, n // 4))
    count = min(max(1, round(share * n / span)), n - span + 1)
    begins = random.permutation(n - span + 1)[:count]
    mask = np.zeros(n, bool)
    for offset in range(span):
        mask[begins + offset] = True
    if mask.all():
        mask[int(random.integers(n))] = False
    return mask


def negatives_of(n: int, k: int, random: np.random.Generator) -> NDArray[np.int64]:
    """``k`` of ``n`` masked frames of one window for each of them, itself left out; with a single one, itself: (n, k)."""
    if n < 2:
        return np.zeros((n, k), np.int64)
    drawn = random.integers(0, n - 1, (n, k))
    return drawn + (drawn >= np.arange(n)[:, None])


class CodeHead(nn.Module):
    """Codes of masked frames from the body's states: a linear layer and cross entropy."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, codes)

    def forward(self, states: Tensor, features: Tensor, batch: Masked) -> dict[str, Tensor]:
        """``loss`` and ``accuracy`` of this share; of each masked frame ``losses (M,)``, whether ``right (M,)``, and its ``codes (M,)``."""
        logits = self.out(self.norm(states)).float()  # (M, V)
        losses = functional.cross_entropy(logits, batch.targets, reduction="none")  # type: ignore[arg-type]
        codes = logits.detach().argmax(1)
        return _shared(losses, (codes == batch.targets).float(), batch) | {"codes": codes}


class Contrast(nn.Module):
    """The quantizer and the contrastive loss of wav2vec 2.0: product quantization by a Gumbel softmax over G groups of V codes."""

    def __init__(self, width: int, features: int, *, groups: int, codes: int, projected: int) -> None:
        super().__init__()
        self.groups, self.codes = groups, codes
        self.score = nn.Linear(features, groups * codes)
        self.vectors = nn.Parameter(torch.rand(groups, codes, projected // groups))
        self.of_code = nn.Linear(projected, projected)
        self.of_state = nn.Linear(width, projected)
        nn.init.normal_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor, features: Tensor, batch: Masked) -> dict[str, Tensor]:
        """As ``CodeHead.forward``, with codes (M, G) of the quantizer and ``perplexity``: how many codes of a group are in use, in effect.

        A frame is right when its own quantized vector is nearer than all negatives.
        """
        scores = self.score(features).float().unflatten(1, (self.groups, self.codes))  # (M, G, V)
        if self.training and batch.noise is not None:
            soft = ((scores + batch.noise.view_as(scores)) / batch.temperature).softmax(-1)
        else:
            soft = scores
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        chosen = hard if soft is scores else hard - soft.detach() + soft  # straight through
        quantized = torch.einsum("mgv,gvp->mgp", chosen.to(self.vectors.dtype), self.vectors).flatten(1)
        targets, said = self.of_code(quantized).float(), self.of_state(states).float()  # (M, P)
        others = targets[batch.negatives]  # (M, K, P)
        near = functional.cosine_similarity(said, targets, dim=-1).unsqueeze(1)
        far = functional.cosine_similarity(said.unsqueeze(1), others, dim=-1)  # (M, K)
        index = hard.argmax(-1)  # (M, G)
        same = (index[batch.negatives] == index.unsqueeze(1)).all(-1)
        logits = torch.cat([near, far.masked_fill(same, UNDEFINED)], 1) / SIMILARITY_TEMPERATURE
        losses = logits.logsumexp(1) - logits[:, 0]
        right = (near.squeeze(1) > far.masked_fill(same, UNDEFINED).amax(1)).float()
        found = _shared(losses, right, batch)
        diversity, perplexity = self._diversity(scores.softmax(-1), batch)
        return found | {"loss": found["loss"] + DIVERSITY * diversity, "perplexity": perplexity, "codes": index.detach()}

    def _diversity(self, probabilities: Tensor, batch: Masked) -> tuple[Tensor, Tensor]:
        """1 - perplexity / (G V) within each block of the batch; this share's part of the mean over all blocks, and mean perplexity."""
        blocks = [probabilities[batch.block == b].mean(0) for b in sorted(set(batch.block.tolist()))]
        found = torch.stack([torch.exp(-(p * (p + 1e-7).log()).sum(-1)).sum() for p in blocks])
        all_codes = self.groups * self.codes
        return (1 - found / all_codes).sum() * batch.world / batch.blocks, (found / self.groups).mean().detach()


class MaskedBody(nn.Module):
    """A wav2vec 2.0 body and what is trained on top of it."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, batch: Masked) -> dict[str, Tensor]:
        """The losses of the masked frames of a batch."""
        precision = next(self.body.parameters()).dtype
        output = self.body(batch.wave.to(precision), attention_mask=batch.attention_mask, mask_time_indices=batch.mask)
        found: dict[str, Tensor] = self.head(output.last_hidden_state[batch.mask], output.extract_features[batch.mask], batch)
        return found


def padded(waves: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Waves (B, S) with zeros behind them, and a mask that is 1 for what is real."""
    longest = max(len(wave) for wave in waves)
    out, mask = np.zeros((len(waves), longest), np.float32), np.zeros((len(waves), longest), np.int64)
    for i, wave in enumerate(waves):
        out[i, : len(wave)], mask[i, : len(wave)] = wave, 1
    return torch.from_numpy(out), torch.from_numpy(mask)


def _shared(losses: Tensor, right: Tensor, batch: Masked) -> dict[str, Tensor]:
    """This share's part of the mean over the masked frames of the whole batch, times the number of shares."""
    scale = batch.world / batch.total
    return {"loss": losses.sum() * scale, "accuracy": right.sum() * scale, "losses": losses.detach(), "right": right.detach()}
