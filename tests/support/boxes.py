"""Boxes in clusters, as detectors propose them."""

import torch
from torch import Tensor


def clustered_boxes(n: int, seed: int, quantum: int = 0) -> tuple[Tensor, Tensor]:
    """Return (N, 4) boxes of about 120 pixels around few centres, and (N,) scores.

    A `quantum` in pixels rounds the boxes, so that many overlaps are equal.
    """
    g = torch.Generator().manual_seed(seed)
    centres = n // 20 + 1
    c = (torch.rand(centres, 2, generator=g) * 800)[torch.randint(centres, (n,), generator=g)]
    c = c + 8 * torch.randn(n, 2, generator=g)
    size = 120 + 24 * torch.randn(n, 2, generator=g).clamp(-4, 4)
    boxes, scores = torch.cat([c - size / 2, c + size / 2], 1), torch.rand(n, generator=g)
    return (boxes / quantum).round() * quantum if quantum else boxes, scores
