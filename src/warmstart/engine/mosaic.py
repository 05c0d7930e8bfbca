"""Many small images as one picture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mosaic(images: Tensor, *, columns: int | None = None) -> Tensor:
    """Images (N, C, H, W) from 0 to 1, row by row with a dark line between, as (H', W') or (H', W', 3); 1 or 3 channels."""
    n, c = images.shape[:2]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    padded = F.pad(images.detach().float().cpu().clamp(0, 1), (0, 1, 0, 1))  # (N, C, H + 1, W + 1)
    h, w = padded.shape[2:]
    padded = torch.cat([padded, padded.new_zeros(rows * columns - n, c, h, w)])
    whole = padded.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)[:, :-1, :-1]
    return whole[0] if c == 1 else whole.permute(1, 2, 0)


def pairs(first: Tensor, *others: Tensor, columns: int = 10) -> Tensor:
    """Rows of ``first`` (N, C, H, W), with what belongs to each image below it; images that do not fill a row are left out."""
    columns = min(columns, len(first))
    n = len(first) // columns * columns
    rows = [group[i : i + columns] for i in range(0, n, columns) for group in (first, *others)]
    return mosaic(torch.cat(rows), columns=columns)


def spread(images: Tensor) -> Tensor:
    """Each image (N, ...) stretched to 0 to 1 around a grey zero: filters, whose sign matters."""
    largest = images.flatten(1).abs().amax(1).clamp(min=1e-12)
    return images / (2 * largest.view(-1, *[1] * (images.ndim - 1))) + 0.5
