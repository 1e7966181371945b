"""Alignment of a clip's frame with the pose of a rollout. The rollout's head is not exactly where the clip's is.

Without alignment the refiner's targets have details where its frame does not show them. It then learns to omit them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner.model import warp

GRID = 8  # cells a side of the smooth flow
STAGES = ((32, 40), (64, 25))  # sides of the pictures that are compared, and steps
RATE = 0.02
STIFF = 0.5  # weight of the flow's differences between neighbouring cells
LEVELS = 0.3  # weight of brightness beside edges: tints and smears are the rollout's own


def align(truth: Tensor, frames: Tensor, ignored: Tensor) -> Tensor:
    """The smooth flow [N, 2, 8, 8] that moves truths onto frames, as `warp` takes it.

    truth, frames: [N, 3, S, S] in [-1, 1]. ignored: [N, 1, S, S], 1 where they need not agree (mouth and eyes).
    """
    flow = torch.zeros(len(truth), 2, GRID, GRID, requires_grad=True)
    optimizer = torch.optim.Adam([flow], lr=RATE)
    with torch.enable_grad():
        for side, steps in STAGES:
            ours, theirs, free = (F.interpolate(x, (side, side), mode="area") for x in (truth, frames, ignored))
            for _ in range(steps):
                moved = warp(ours, F.interpolate(flow, (side, side), mode="bicubic", align_corners=False))
                apart = ((moved - theirs) * (1 - free)).square().add(1e-3).sqrt().mean((1, 2, 3))
                bent = sum(flow.diff(dim=d).square().mean((1, 2, 3)) for d in (-1, -2))
                optimizer.zero_grad()
                (apart + STIFF * bent).sum().backward()
                optimizer.step()
    return flow.detach()


def moved(truth: Tensor, flow: Tensor) -> Tensor:
    """Pictures [N, C, S, S] moved by the flow of `align`."""
    smooth = F.interpolate(flow, (64, 64), mode="bicubic", align_corners=False)
    return warp(truth, smooth)
