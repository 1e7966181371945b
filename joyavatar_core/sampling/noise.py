"""Every random draw of a stream, addressed by what it is for, so that no draw depends on another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

INITIAL, RENOISE, INJECT, CONTEXT = "initial", "renoise", "inject", "context"


class NoiseSource:
    """Standard normal noise keyed by (seed, block, role, step), drawn on the CPU in float32.

    Anything with this `draw` can take its place, for example to replay recorded noise. The roles: "initial" (step 0),
    the noise a block starts from; "renoise", fresh noise before denoising step 1, 2, ... of a block; "inject" (step 0),
    MCI's overlay; "context" (step 0), MCI's noisy memory of a block.

    carry: how much of the noise that a block's last frame is made from also makes the next block's first (0 ... 1,
    MCI's setting). Inside a block all frames' noise stays independent.

    A block's noise does not change with the number of steps of another block, with how often the stream is pulled,
    or with the device it runs on.
    """

    def __init__(self, seed: int, carry: float = 0.0) -> None:
        self.seed, self.carry = seed, carry

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """Float32 noise of `shape` [B, channels, frames, h, w]."""
        noise = self._independent(role, block, step, shape)
        if not (self.carry and block and role in (INITIAL, RENOISE)):
            return noise
        before = self._independent(role, block - 1, step, shape)[:, :, -1:]
        first = math.sqrt(self.carry) * before + math.sqrt(1 - self.carry) * noise[:, :, :1]
        return torch.cat([first, noise[:, :, 1:]], dim=2)

    def _independent(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        key = f"{self.seed}/{block}/{role}/{step}".encode()
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number))
