"""The pointwise steps between matrix products and attention, eager or compiled to one kernel each.

An eager step rounds where the public loops do. A compiled step keeps float32 until its end, so results in half
precision differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .rope import apply_rope

NORM_EPS = 1e-6


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then (1 + scale) and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root mean square norm; statistics in float32, the weight applied after casting back."""
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS) * weight


def norm_rotate(x: Tensor, weight: Tensor, rope: Tensor) -> Tensor:
    """[B, T, dim] -> heads [B, T, heads, head_dim]: RMSNorm over all heads at once, then a `rope_table`."""
    return apply_rope(rms_norm(x, weight).unflatten(-1, (-1, 2 * rope.shape[-2])), rope)


def add_gated(x: Tensor, change: Tensor, gate: Tensor) -> Tensor:
    """The residual stream with a gated change."""
    return x + change * gate


@dataclass(frozen=True)
class Pointwise:
    """The steps as a block calls them."""

    modulate: Callable[[Tensor, Tensor, Tensor], Tensor] = modulate
    norm_rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = norm_rotate
    add_gated: Callable[[Tensor, Tensor, Tensor], Tensor] = add_gated


EAGER = Pointwise()


@cache
def compiled() -> Pointwise:
    """The steps through torch.compile: one kernel each. Compiled on first use, for every new shape."""
    return Pointwise(*(torch.compile(step, dynamic=False) for step in (modulate, norm_rotate, add_gated)))
