"""Movements of a stream's head and brows.

They depend on a seed, the frame's number and the voice alone, so streams resume. The embedded avatar's own heads move
little. These movements come on top: slow ones, sums of sines with random frequencies and phases, which do not repeat,
and nods and raised brows on stresses. They are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .draws import Draws
from .gestures import NODS, RAISED_BROWS, gestures

WAVES = 5  # sines of a track
SLOWEST, FASTEST = 0.06, 0.5  # Hz
FALLING = 0.8  # a sine's size is its frequency to the power of minus this


class HeadPose(NamedTuple):
    """How far a head is from where it was, at a deviation of each over time.

    x, y: to the right and down, in halves of the face square's side. roll: in radians, clockwise. yaw, pitch: how far
    the middle of the face moves against its outline, to the right and down, in halves of the side.
    """

    x: float = 0.03
    y: float = 0.02
    roll: float = 0.02
    yaw: float = 0.04
    pitch: float = 0.025


DEVIATIONS = HeadPose()  # of the slow movements
NOD = HeadPose(x=0, y=0.03, roll=0, yaw=0, pitch=0.08)  # the farthest one
BROWS = 0.8  # the farthest they are raised, in units of `Moment.lift`


@dataclass(frozen=True)
class HeadMovements:
    """The head and the brows of one stream.

    seed: of the movements. fps: video frames per second. size: factor of all movements; 0 for none.
    """

    seed: int
    fps: int
    size: float = 1.0

    def __call__(self, first_frame: int, count: int, loud: Tensor | None = None) -> Tensor:
        """[count, 5] float32, columns of `HeadPose`. The pose of a portrait is where all tracks are 0.

        loud: the voice, as `gestures` takes it; None: the head does not nod.
        """
        seconds = (first_frame + np.arange(count) + 0.5)[:, None, None] / self.fps
        frequencies, phases, sizes = self._waves
        tracks = (sizes * np.sin(2 * np.pi * frequencies * seconds + phases)).sum(-1)
        poses = torch.from_numpy(np.array(DEVIATIONS) * tracks).float()
        if loud is not None:
            poses += gestures(NODS, loud, self.seed, first_frame, count, self.fps)[:, None] * torch.tensor(NOD)
        return self.size * poses

    def brows(self, first_frame: int, count: int, loud: Tensor) -> Tensor:
        """How far the brows are raised, [count] float32, in units of `Moment.lift`; loud: as `gestures` takes it."""
        return self.size * BROWS * gestures(RAISED_BROWS, loud, self.seed, first_frame, count, self.fps)

    @cached_property
    def _waves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frequencies in Hz, phases, and sizes for a track of unit deviation, [5, WAVES] each."""
        random = Draws.HEAD.generator(self.seed)
        shape = (len(DEVIATIONS), WAVES)
        frequencies = np.exp(random.uniform(np.log(SLOWEST), np.log(FASTEST), shape))
        sizes = frequencies**-FALLING
        return frequencies, random.uniform(0, 2 * np.pi, shape), sizes * (2 / (sizes**2).sum(-1, keepdims=True)) ** 0.5
