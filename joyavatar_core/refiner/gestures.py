"""What a face does on the stresses of a voice: nods, and raised brows.

They depend on a seed, the frame's number and the last 0.7 s of the voice. A stress is where the voice gets
louder. How large a gesture is, is random; some are left out or reversed. The definition is this project's own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .draws import Draws

RISE = 0.125  # seconds over which a rise of the voice is measured
STRESSED = 1 / 16  # seconds of a stress that count once
LEAST, MOST = 0.5, 2.0  # rises, in deviations of the loudness: smaller ones are no stress, larger ones count as this
SLOT = 0.7  # seconds; the stresses within a slot have the same strength


class Gesture(NamedTuple):
    """A kind of gesture.

    there, back: seconds in which it is made and taken back. changed: share of slots whose strength is multiplied by
    `factor`. draws: the random numbers that it uses.
    """

    there: float
    back: float
    changed: float
    factor: float
    draws: Draws


NODS = Gesture(there=0.24, back=0.44, changed=0.2, factor=-1.0, draws=Draws.NODS)  # down; some go up
# Half of the stresses have no raised brows.
RAISED_BROWS = Gesture(there=0.16, back=0.45, changed=0.5, factor=0.0, draws=Draws.BROWS)


def gestures(kind: Gesture, loud: Tensor, seed: int, first_frame: int, count: int, fps: int) -> Tensor:
    """How far the gesture is made in each frame, [count], within -1 ... 1; 0 where nothing was stressed.

    loud: the voice's loudness in deviations from its mean, [n + count]; the first n frames are the ones before. 0.7 s
    of them are needed where a stream goes on. A block of 12 frames at 16 frames per second brings them; at other rates
    up to two may lack, which changes gestures by less than 0.01. first_frame: number of the first of `count` frames.
    fps: frames per second.
    """
    shape, step = gesture_shape(kind, fps), max(1, round(RISE * fps))
    wanted = step + len(shape) - 1 + count
    heard = torch.cat([loud[:1].expand(max(0, wanted - len(loud))), loud])[-wanted:].cpu().float()
    stress = ((heard[step:] - heard[:-step] - LEAST) / (MOST - LEAST)).clamp(0, 1)
    frames = first_frame + count - len(stress) + np.arange(len(stress))
    stress = stress * _strengths(kind, seed, np.floor(frames / fps / SLOT).astype(int))
    return torch.tanh(stress.unfold(0, len(shape), 1) @ shape.flip(0) / (STRESSED * fps))


def gesture_shape(kind: Gesture, fps: int) -> Tensor:
    """How far a gesture is made in the frames after a stress, at most 1."""
    seconds = torch.arange(1, math.ceil((kind.there + kind.back) * fps)) / fps
    there = torch.sin(math.pi / 2 * seconds / kind.there).square()
    back = torch.cos(math.pi / 2 * (seconds - kind.there) / kind.back).square()
    return torch.where(seconds < kind.there, there, back)


def _strengths(kind: Gesture, seed: int, slots: np.ndarray) -> Tensor:
    """The strength of the gestures in each slot, -1 ... 1."""
    strengths = {}
    for slot in {*slots.tolist()}:
        random = kind.draws.generator(seed, slot)
        strengths[slot] = random.uniform() * (kind.factor if random.random() < kind.changed else 1)
    return torch.tensor([strengths[slot] for slot in slots.tolist()], dtype=torch.float32)
