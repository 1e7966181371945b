"""A small U-Net (arXiv 1505.04597) with group norm, and its layers, for this project's own networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8


class Layer(nn.Sequential):
    """Two convolutions with group norm and SiLU; the size stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(GROUPS, outputs), nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(GROUPS, outputs), nn.SiLU(),
        )  # fmt: skip


class UNet(nn.Module):
    """A U-Net with a layer of each width, down and up. Each level has half the side of the level before."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(Layer(*pair) for pair in zip((inputs, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(
            Layer(below + beside, beside) for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )

    def features(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, widths[0], h, w]."""
        kept = []
        for layer in self.down:
            x = layer(F.avg_pool2d(x, 2, ceil_mode=True) if kept else x)
            kept.append(x)
        for layer, beside in zip(self.up, kept[-2::-1], strict=True):
            x = layer(torch.cat([F.interpolate(x, beside.shape[-2:], mode="nearest"), beside], dim=1))
        return x
