"""Rotary position embedding over (frame, row, column), as Wan2.1 lays it out in each head.

Angles are made in float64 from the positions themselves, so no table ends anywhere. The rotation runs in float64 on a
CPU, as in the public loops, and in float32 on accelerators, which are slow in float64 or lack it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def section_pairs(head_dim: int) -> tuple[int, int, int]:
    """Pairs of a head given to time, height, width: 22, 21, 21 for a head of 128."""
    spatial = head_dim // 6
    return head_dim // 2 - 2 * spatial, spatial, spatial


def section_frequencies(pairs: int) -> Tensor:
    """Radians per position of each pair in one section, float64 [pairs]; every section has its own exponent."""
    return THETA ** -(torch.arange(pairs, dtype=torch.float64) / pairs)


def rope_table(positions: Sequence[int], height: int, width: int, head_dim: int, device=None) -> Tensor:
    """The rotation of every token of some frames, complex [frames * height * width, 1, head_dim / 2].

    `positions` are the frames' temporal positions; tokens run frame, row, column with the column fastest.
    """
    grid = (torch.as_tensor(positions, dtype=torch.float64), torch.arange(height), torch.arange(width))
    angles = [
        torch.outer(axis.double(), section_frequencies(n))
        for axis, n in zip(grid, section_pairs(head_dim), strict=True)
    ]
    frames = len(grid[0])
    time = angles[0].view(frames, 1, 1, -1).expand(-1, height, width, -1)
    rows = angles[1].view(1, height, 1, -1).expand(frames, -1, width, -1)
    columns = angles[2].view(1, 1, width, -1).expand(frames, height, -1, -1)
    table = torch.cat([time, rows, columns], dim=-1).flatten(0, 2).unsqueeze(1)
    accurate = torch.device(device or "cpu").type == "cpu"
    return torch.polar(torch.ones_like(table), table).to(device, torch.complex128 if accurate else torch.complex64)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate x [B, T, heads, head_dim] by a `rope_table` [T, 1, head_dim / 2]; adjacent numbers form a pair."""
    pairs = torch.view_as_complex(x.to(table.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def shift_rotated(keys: Tensor, frames: int) -> Tensor:
    """Keys [..., head_dim] that were rotated for position p, rotated on to position p + frames, in float32."""
    temporal, *_ = section_pairs(keys.shape[-1])
    angle = section_frequencies(temporal).to(keys.device) * frames
    turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    moved = keys.float()
    pairs = torch.view_as_complex(moved[..., : 2 * temporal].unflatten(-1, (-1, 2)).contiguous())
    return torch.cat([torch.view_as_real(pairs * turn).flatten(-2), moved[..., 2 * temporal :]], dim=-1).to(keys.dtype)
