"""Motion Condition Injection: the newest generated frames are shown to the next block as noisy conditions.

The name is the JoyAvatar paper's (arXiv 2512.11423); where and how the noise enters is this project's definition.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import is_number, is_whole
from ..errors import AvatarError

MODES = ("inject", "context", "off")


@dataclass(frozen=True)
class MciSettings:
    """How the recent past is noised: x = (1 - noise) x + noise * eps, told to the model as label 1000 * noise.

    `inject`: noisy copies of the newest `frames` latent frames are extra keys beside the clean ones. `context`: every
    block is remembered noisy. `off`, or 0 frames or 0 noise: nothing is added at all.
    `carry`: share (0 ... 1) of the noise of a block's last frame that the next block's first frame begins from, so that
    what noise decides goes on across the seam.
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
        """Latent frames shown as noisy copies."""
        return self.frames if self.mode == "inject" and self.noise > 0 else 0

    @property
    def carried(self) -> float:
        """Share of the last frame's noise in the next block's first frame."""
        return self.carry if self.injected or self.context_noise else 0.0

    @property
    def context_noise(self) -> float:
        """Noise level at which a finished block is remembered."""
        return self.noise if self.mode == "context" and self.frames > 0 else 0.0


MCI_OFF = MciSettings(mode="off")
