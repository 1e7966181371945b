"""Rotary position embedding over (frame, row, column), in Wan2.1's layout of a head.

Angles are computed in float64 from the positions, so positions have no upper limit. Cosines and sines are rounded once
to float32, and the rotation runs in float32: 5e-7 from the public loops' float64 on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..device import to_device

THETA = 10000.0


def section_pairs(head_dim: int) -> tuple[int, int, int]:
    """Pairs of a head for time, height, width: 22, 21, 21 for a head of 128."""
    spatial = head_dim // 6
    return head_dim // 2 - 2 * spatial, spatial, spatial


def section_frequencies(pairs: int) -> Tensor:
    """Radians per position of each pair in one section, float64 [pairs]; every section has its own exponent."""
    return THETA ** -(torch.arange(pairs, dtype=torch.float64) / pairs)


def rope_table(positions: Sequence[int], height: int, width: int, head_dim: int, device=None) -> Tensor:
    """Cosine and sine of every token of some frames, float32 [frames * height * width, 1, head_dim / 2, 2].

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
    return to_device(cosine_and_sine(table), device)


def cosine_and_sine(angles: Tensor) -> Tensor:
    """float64 [...] -> float32 [..., 2]."""
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def rotate_pairs(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent numbers of x [..., 2 n] by a table [..., n, 2], in float32; returned in x's dtype."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # torch.compile has no complex numbers; eager kernels are fastest with them
        (a, b), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x.dtype)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate x [B, T, heads, head_dim] by a `rope_table` [T, 1, head_dim / 2, 2]."""
    return rotate_pairs(x, table)


def shift_table(head_dim: int, frames: int, device=None) -> Tensor:
    """The rotation that moves a key by `frames` positions in time, float32 [pairs of the time section, 2]."""
    temporal, *_ = section_pairs(head_dim)
    return to_device(cosine_and_sine(section_frequencies(temporal) * frames), device)


def shift_rotated(keys: Tensor, table: Tensor) -> Tensor:
    """Keys [..., head_dim] that were rotated for position p, rotated on by a `shift_table`, in float32."""
    temporal = 2 * table.shape[0]
    moved = rotate_pairs(keys[..., :temporal], table)
    return torch.cat([moved, keys[..., temporal:]], dim=-1)
