"""Eye movements of a stream: blinks and glances. They depend on a seed and the frame's number alone, so streams resume.

Times and shapes are this project's own. People who talk blink about 17 times a minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .draws import Draws

CLOSING, OPENING = 0.11, 0.2  # seconds of a blink; its shape is that of the training data (synthetic/motion.py)
CLOSED = 1.35  # peak of a blink before it is cut at 1: the lids stay closed for a moment
SECOND_BLINK, SECOND_AFTER = 0.07, 0.32  # share of blinks with a second one, and seconds between both
FIXATION = 1.2  # seconds between two changes of the gaze, in the mean
GLANCE, NEAR = 0.1, 0.04  # share of glances past the camera, and the deviation of all other gazes
FAR = (0.22, 0.12)  # deviation of glances, across and up
SACCADE = 0.06  # seconds that a change of the gaze takes


@dataclass(frozen=True)
class EyeMovements:
    """The eyes of one stream.

    seed: of the times. fps: video frames per second. blinks: mean number in a minute; 0 for none.
    """

    seed: int
    fps: int
    blinks: float = 17.0

    def __call__(self, first_frame: int, count: int) -> Tensor:
        """[count, 3] float32: closure of the lids (0 as in the portrait, 1 closed), and the gaze's change from the
        portrait's, across (to the picture's right) and up, in -1 ... 1.
        """
        seconds = (first_frame + np.arange(count) + 0.5) / self.fps
        tracks = [[self._closure(t), *self._gaze(t)] for t in seconds]
        return torch.tensor(tracks, dtype=torch.float32).reshape(count, 3)

    def _closure(self, t: float) -> float:
        if not self.blinks:
            return 0.0
        period = 60 / self.blinks
        slot = math.floor(t / period)
        return min(1.0, sum(blink(t - closed) for closed in self._blink_times(slot - 1, slot, slot + 1)))

    def _blink_times(self, *slots: int) -> list[float]:
        """Seconds at which the lids are closed. Each slot of 60 / blinks seconds has one blink, or two in a row."""
        times, period = [], 60 / self.blinks
        for slot in slots:
            random = Draws.BLINKS.generator(self.seed, slot)
            closed = (slot + random.uniform(0.1, 0.9)) * period
            times += [closed, closed + SECOND_AFTER] if random.random() < SECOND_BLINK else [closed]
        return times

    def _gaze(self, t: float) -> tuple[float, float]:
        slot = math.floor(t / FIXATION)
        _, (across, up) = self._fixation(slot - 1)
        for began, (x, y) in map(self._fixation, (slot, slot + 1)):
            moved = min(1.0, max(0.0, (t - began) / SACCADE))
            across, up = across + moved * (x - across), up + moved * (y - up)
        return across, up

    def _fixation(self, slot: int) -> tuple[float, tuple[float, float]]:
        """The second at which a fixation begins, and its gaze."""
        random = Draws.GAZES.generator(self.seed, slot)
        began = (slot + random.uniform(0.0, 0.7)) * FIXATION
        spread = FAR if random.random() < GLANCE else (NEAR, NEAR)
        return began, tuple(float(np.clip(random.normal(0, one), -0.6, 0.6)) for one in spread)


def blink(seconds: float) -> float:
    """How far the lids are closed, 0 ... 1.35, so long after they began to stay closed; negative is before."""
    if not -CLOSING < seconds < OPENING:
        return 0.0
    if seconds < 0:
        return CLOSED * math.cos(math.pi / 2 * seconds / CLOSING) ** 2
    return CLOSED * math.cos(math.pi / 2 * seconds / OPENING) ** 2
