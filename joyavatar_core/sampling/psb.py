"""Progressive Step Bootstrapping: more denoising steps for the first blocks, fewer for all later ones.

The name is the JoyAvatar paper's (arXiv 2512.11423); the schedule and the choice of levels below are this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..checks import is_number, is_whole
from ..config import AvatarConfig
from ..errors import AvatarError
from .flow import Level, dense_levels

MAX_STEPS = 1000
MODES = ("restart", "dense")


@dataclass(frozen=True)
class PsbSettings:
    """Steps of block b: base + floor((first - base) * max(0, 1 - b / blocks) ** curve + 1/2).

    first: steps of block 0; None switches PSB off.
    base: steps behind the ramp; None is the number of levels that the checkpoint was trained on.
    blocks: length of the ramp in blocks; 0 switches PSB off.
    curve: exponent of the ramp; 1 is a straight line.
    mode: the levels of extra steps, `restart` or `dense`; see `levels_for`.
    steps: an explicit list that replaces the formula; its last entry holds for every later block.
    """

    first: int | None = 8
    base: int | None = None
    blocks: int = 4
    curve: float = 1.0
    mode: str = "restart"
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple):
            raise AvatarError(f"PSB steps is {self.steps}; give a list of step counts such as 8,6,4.")
        for name, value in (("first", self.first), ("base", self.base), *(("steps", n) for n in self.steps)):
            if not (is_whole(value, 1, MAX_STEPS) or (value is None and name != "steps")):
                raise AvatarError(f"PSB {name} is {value}; give a whole number of steps from 1 to {MAX_STEPS}.")
        if not is_whole(self.blocks, 0, 10**6):
            raise AvatarError(f"PSB blocks is {self.blocks}; give a whole number from 0 (off) to 1000000.")
        if not (is_number(self.curve) and self.curve > 0):
            raise AvatarError(f"PSB curve is {self.curve}; give a number above 0 (1 falls in a straight line).")
        if self.mode not in MODES:
            raise AvatarError(f"PSB mode is '{self.mode}'; choose one of {', '.join(MODES)}.")

    def check(self, config: AvatarConfig) -> None:
        """Raise AvatarError where the settings do not suit a checkpoint's trained levels and sampler."""
        trained = len(config.levels)
        base = self.base or trained
        if config.sampler == "rolling" and {self.steps_for(0, trained), base, *self.steps} != {trained}:
            raise AvatarError(
                f"In a rolling window every block takes one step in each of {trained} passes, so PSB cannot give the "
                "first blocks more; switch it off.",
                "psb",
            )
        if self.first is not None and self.blocks and not self.steps and self.first < base:
            raise AvatarError(
                f"PSB starts with {self.first} steps and goes to {base}; "
                "the first blocks need at least as many as the rest."
            )

    def steps_for(self, block: int, trained: int) -> int:
        """Number of denoising steps of block 0, 1, ... for a checkpoint with this many trained levels."""
        if self.steps:
            return self.steps[min(block, len(self.steps) - 1)]
        base = self.base or trained
        if self.first is None or not self.blocks:
            return base
        ramp = max(0.0, 1 - block / self.blocks) ** self.curve
        return base + math.floor((self.first - base) * ramp + 0.5)


PSB_OFF = PsbSettings(first=None)


def levels_for(steps: int, trained: tuple[Level, ...], mode: str, shift: float) -> tuple[Level, ...]:
    """The noise levels of a block of `steps` steps.

    As many steps as trained levels: the trained levels. Fewer: evenly spaced trained levels. More, `restart`: the
    trained levels, then the last two of them in turn, ending on the last. More, `dense`: the shifted schedule.
    """
    count = len(trained)
    if steps == count:
        return trained
    if steps > count:
        if mode == "dense":
            return dense_levels(steps, shift)
        pair = trained[-2:]
        again = [pair[-1 - k % len(pair)] for k in range(steps - count)]
        return (*trained, *reversed(again))
    if steps == 1:
        return trained[:1]
    return tuple(trained[math.floor(k * (count - 1) / (steps - 1) + 0.5)] for k in range(steps))
