"""Boxes in clusters, as detectors propose them."""

import torch
from torch import Tensor

BOXES = (10, 20, 90, 60), (-30, -20, 25, 45), (3, 3, 4, 4), (100, 80, 400, 300), (50, 50, 50, 50), (500, 500, 600, 600)
ROIS = torch.tensor([(i % 2, *box) for i, box in enumerate((*BOXES, (0, 0, 160, 128)))], dtype=torch.float64)
"""Regions (N, 5) of two images of 160x128 pixels: inside, across the border, outside, small and empty."""


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
