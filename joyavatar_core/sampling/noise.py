"""Every random draw of a stream, addressed by what it is for, so that no draw depends on another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

INITIAL, RENOISE, INJECT, CONTEXT = "initial", "renoise", "inject", "context"


class Noise(Protocol):
    """Where a stream's noise comes from: a NoiseSource, or for example recorded noise.

    The roles: "initial" (step 0), the noise that a block starts from; "renoise", fresh noise before denoising step 1,
    2, ... of a block; "inject" (step 0), MCI's overlay; "context" (step 0), the noise of MCI's noisy cache update.
    """

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """Standard normal noise of `shape` [B, channels, frames, h, w]; equal arguments give equal noise."""


class NoiseSource:
    """Noise keyed by (seed, block, role, step), drawn on the CPU in float32.

    A block's noise does not change with the number of steps of another block, with how often the stream is run, or
    with the device it runs on. Blocks and frames are independent of one another.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """Float32 noise, as `Noise.draw`."""
        key = f"{self.seed}/{block}/{role}/{step}".encode()
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number))
