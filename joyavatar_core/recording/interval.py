"""How often a state is written: every so many blocks, so much video, or so many bytes a minute."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
MAX_BLOCKS = 10**6


@dataclass(frozen=True)
class Interval:
    """A number of blocks, seconds of video, or bytes of states per minute of video; the longest of those given."""

    blocks: int | None = None
    seconds: float | None = None
    bytes_per_minute: int | None = None

    def __post_init__(self) -> None:
        for value in (self.blocks, self.seconds, self.bytes_per_minute):
            if value is not None and not 0 < value < float("inf"):
                raise AvatarError(f"The interval between states is {value}; give something above 0.")

    @classmethod
    def parse(cls, text: str) -> Interval:
        """'40' blocks, '30s' of video, '200MB' at most per minute of video. Raises AvatarError for anything else."""
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]*)", text.strip())
        number, unit = (match[1], match[2].upper()) if match else ("", "?")
        if unit == "" and number.isdigit():
            return cls(blocks=int(number))
        if unit == "S":
            return cls(seconds=float(number))
        if unit in UNITS:
            return cls(bytes_per_minute=int(float(number) * UNITS[unit]))
        raise AvatarError(
            f"The interval between states is '{text}'; write 40 (blocks), 30s (of video) or 200MB (a minute of video)."
        )

    def in_blocks(self, state_bytes: int, fps: int | Fraction, block_frames: int) -> int:
        """The interval for a stream whose state takes `state_bytes`: a whole number of blocks, at least 1."""
        blocks_per_second = Fraction(fps) / (VIDEO_FRAMES_PER_LATENT * block_frames)
        wanted = [Fraction(self.blocks or 1)]
        if self.seconds is not None:
            wanted.append(Fraction(self.seconds) * blocks_per_second)
        if self.bytes_per_minute is not None:
            wanted.append(Fraction(state_bytes, self.bytes_per_minute) * 60 * blocks_per_second)
        return min(math.ceil(max(wanted)), MAX_BLOCKS)


DEFAULT_INTERVAL = Interval(seconds=30.0, bytes_per_minute=10**9)
