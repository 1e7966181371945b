"""Motion Condition Injection: the newest generated frames are noisy conditions of the next block.

The name is the JoyAvatar paper's (arXiv 2512.11423); where and how the noise enters is this project's definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import is_number, is_whole
from ..errors import AvatarError
from .noise import INITIAL, RENOISE, Noise

MODES = ("inject", "context", "off")


@dataclass(frozen=True)
class MciSettings:
    """How the recent past is noised: x = (1 - noise) x + noise * eps, at timestep 1000 * noise.

    mode: `inject` adds noisy copies of the newest `frames` latent frames as keys beside the clean ones. `context`
        caches every block noisy instead of clean. `off`, like 0 frames or 0 noise, adds nothing.
    frames: latent frames that are injected.
    noise: noise level, 0 to below 1.
    carry: share (0 ... 1) of the noise of a block's last frame that the next block's first frame starts from.
    """

    mode: str = "inject"
    frames: int = 3
    noise: float = 0.25
    carry: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise AvatarError(f"MCI mode is '{self.mode}'; choose one of {', '.join(MODES)}.")
        if not is_whole(self.frames, 0, 1000):
            raise AvatarError(
                f"MCI frames is {self.frames}; give a whole number of latent frames from 0 (off) to 1000."
            )
        if not (is_number(self.noise) and 0 <= self.noise < 1):
            raise AvatarError(f"MCI noise is {self.noise}; give a number from 0 (off) to below 1.")
        if not (is_number(self.carry) and 0 <= self.carry <= 1):
            raise AvatarError(f"MCI carry is {self.carry}; give a number from 0 (off) to 1.")

    @property
    def injected(self) -> int:
        """Latent frames injected as noisy copies."""
        return self.frames if self.mode == "inject" and self.noise > 0 else 0

    @property
    def carried(self) -> float:
        """Share of the last frame's noise in the next block's first frame."""
        return self.carry if self.injected or self.context_noise else 0.0

    @property
    def context_noise(self) -> float:
        """Noise level of a finished block's cache update."""
        return self.noise if self.mode == "context" and self.frames > 0 else 0.0


MCI_OFF = MciSettings(mode="off")


@dataclass(frozen=True)
class CarriedNoise:
    """Noise of any source with MCI's carry between blocks.

    The first frame of a block mixes its own noise with that of the previous block's last frame:
    sqrt(carry) before + sqrt(1 - carry) own, which keeps its variance. Inside a block frames stay independent.
    """

    source: Noise
    carry: float

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """As `Noise.draw`."""
        noise = self.source.draw(role, block, step, shape)
        if not (self.carry and block and role in (INITIAL, RENOISE)):
            return noise
        before = self.source.draw(role, block - 1, step, shape)[:, :, -1:]
        first = math.sqrt(self.carry) * before + math.sqrt(1 - self.carry) * noise[:, :, :1]
        return torch.cat([first, noise[:, :, 1:]], dim=2)
