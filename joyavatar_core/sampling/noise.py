"""Every random draw of a stream, addressed by what it is for, so that no draw depends on another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

INITIAL, RENOISE, INJECT, CONTEXT = "initial", "renoise", "inject", "context"


class NoiseSource:
    """Standard normal noise keyed by (seed, block, role, step), drawn on the CPU in float32.

    Anything with this `draw` can take its place, for example to replay recorded noise. The roles: "initial" (step 0),
    the noise a block starts from; "renoise", fresh noise before denoising step 1, 2, ... of a block; "inject" (step 0),
    MCI's overlay; "context" (step 0), MCI's noisy memory of a block.

    A block's noise does not change with the number of steps of another block, with how often the stream is pulled,
    or with the device it runs on.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """Float32 noise of `shape` [B, channels, frames, h, w]."""
        key = f"{self.seed}/{block}/{role}/{step}".encode()
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number))
