"""Autoencoders: an encoder that becomes the body, a decoder that is thrown away, and what is added to the loss. B images, D code.

Vincent et al. 2008 (denoising), Ng 2011 (sparse), Rifai et al. 2011 (contractive), He et al. 2022 (masked).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warmstart.engine import bodies


class Autoencoder(nn.Module):
    """An encoder that gives a code, and a decoder that gives images, before the sigmoid where the loss is cross entropy."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> images (B, C, H, W), code (B, ...)."""
        code = self.encoder(pixel_values=x)[0]
        return self.decoder(code).view_as(x), code


class DenseDecoder(nn.Module):
    """The encoder's layers turned round; the last is linear."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        down = list(reversed(sizes))
        pairs = list(itertools.pairwise(down))
        self.layers = nn.ModuleList(bodies.Layer(a, b, activation if i < len(pairs) - 1 else "") for i, (a, b) in enumerate(pairs))

    def forward(self, code: Tensor) -> Tensor:
        """(B, D) -> (B, pixels)."""
        for layer in self.layers:
            code = layer(code)
        return code


class ConvDecoder(nn.Module):
    """A 3x3 convolution for every stage of the encoder, from the smallest map up, each after enlarging the map to that stage's input."""

    def __init__(self, channels: int, widths: Sequence[int], size: tuple[int, int]) -> None:
        super().__init__()
        sides = [size]
        for _ in widths[1:]:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        self.sides = list(reversed(sides))
        out = [*reversed(widths[:-1]), channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(reversed(widths), out, strict=True))

    def forward(self, code: Tensor) -> Tensor:
        """Map (B, D, h, w) -> (B, C, H, W)."""
        for i, (conv, side) in enumerate(zip(self.convs, self.sides, strict=True)):
            code = conv(F.interpolate(code, size=side, mode="nearest"))
            code = F.relu(code) if i < len(self.convs) - 1 else code
        return code.contiguous()


class MaskedAutoencoder(nn.Module):
    """A vision transformer that sees a part of the patches, and a small decoder that draws the others (He et al. 2022).

    Args:
        vit: ``transformers.ViTModel``; only its embedding, layers and last norm are used, its pooler is left as it is.
        width: Of the decoder.
        depth: Blocks of the decoder.
    """

    def __init__(self, vit: Any, *, width: int, depth: int) -> None:
        super().__init__()
        config = vit.config
        self.vit, self.patch = vit, int(config.patch_size)
        patches = (config.image_size // self.patch) ** 2
        self.enter = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + patches, width))
        heads = max(1, width // 32)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, self.patch**2 * config.num_channels)

    def forward(self, x: Tensor, order: Tensor, visible: int) -> Tensor:
        """Patches (B, P, p p C) of images (B, C, H, W). ``order`` (B, P) is a permutation, whose first ``visible`` are seen."""
        whole = self.vit.embeddings(x)  # (B, 1 + P, D)
        seen = order[:, :visible, None].expand(-1, -1, whole.shape[2])
        tokens = torch.cat([whole[:, :1], whole[:, 1:].gather(1, seen)], 1)  # (B, 1 + visible, D)
        for layer in self.vit.layers:
            tokens = layer(tokens, None)
        tokens = self.enter(self.vit.layernorm(tokens))
        hidden = self.mask_token.expand(len(x), order.shape[1] - visible, -1)
        back = order.argsort(1)[:, :, None].expand(-1, -1, tokens.shape[2])
        drawn = torch.cat([tokens[:, 1:], hidden], 1).gather(1, back)  # (B, P, width), in the images' order
        tokens = torch.cat([tokens[:, :1], drawn], 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return cast(Tensor, self.draw(self.norm(tokens[:, 1:])))


def patches(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, P, side side C), row by row."""
    b, c, h, w = images.shape
    cut = images.reshape(b, c, h // side, side, w // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // side) * (w // side), side * side * c)


def unpatch(cut: Tensor, channels: int, height: int, width: int) -> Tensor:
    """What ``patches`` cut, put together again: (B, P, side side C) -> (B, C, H, W)."""
    side = int((cut.shape[2] // channels) ** 0.5)
    whole = cut.reshape(len(cut), height // side, width // side, side, side, channels)
    return whole.permute(0, 5, 1, 3, 2, 4).reshape(len(cut), channels, height, width)


def normalised(cut: Tensor) -> Tensor:
    """Each patch with mean 0 and deviation 1: what a masked autoencoder draws best (He et al. 2022, section 4.1)."""
    mean, variance = cut.mean(2, keepdim=True), cut.var(2, keepdim=True)
    return (cut - mean) / (variance + 1e-6).sqrt()


# Corruption and penalties -------------------------------------------------------------------------------------------------------------


def corrupted(x: Tensor, kind: str, amount: float, generator: torch.Generator) -> Tensor:
    """Images with noise: ``masking`` sets a share of the pixels to 0, ``salt`` to 0 or 1, ``gaussian`` adds this deviation."""
    if kind == "gaussian":
        return x + amount * torch.randn(x.shape, generator=generator).to(x.device)
    drawn = torch.rand((len(x), 1, *x.shape[2:]), generator=generator).to(x.device)  # the same for all channels of a pixel
    if kind == "masking":
        return x * (drawn >= amount)
    return torch.where(drawn >= amount, x, (drawn < amount / 2).to(x.dtype))


def sparsity(code: Tensor, target: float) -> Tensor:
    """``sum_j KL(target || mean activity of unit j)``, of codes (B, D) between 0 and 1 (Ng 2011)."""
    mean = code.flatten(1).float().mean(0).clamp(1e-4, 1 - 1e-4)
    return (target * torch.log(target / mean) + (1 - target) * torch.log((1 - target) / (1 - mean))).sum()


def contraction(code: Tensor, weight: Tensor) -> Tensor:
    """``||dh/dx||^2`` of every image for one sigmoid layer ``h = s(W x + b)``, exactly (Rifai et al. 2011, equation 5): (B,)."""
    slope = (code * (1 - code)).float()
    return slope.square() @ weight.float().square().sum(1)


def estimated_contraction(code: Tensor, x: Tensor, direction: Tensor) -> Tensor:
    """The same for any encoder, without bias: ``||d(u h)/dx||^2`` with ``u`` standard normal (Hutchinson 1990): (B,).

    ``x`` (B, ...) must require its gradient; ``direction`` is ``u``, in the shape of ``code``.
    """
    (found,) = torch.autograd.grad((code * direction.to(code.dtype)).sum(), x, create_graph=True)
    return found.flatten(1).float().square().sum(1)
