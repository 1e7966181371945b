"""Nods on the stresses of a voice. They depend on a seed, the frame's number and the last half second of the voice.

A nod begins where the voice gets louder. Which stresses are nodded to, and how far, is random. The definition is this
project's own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FALLS, RISES = 0.24, 0.44  # seconds in which the head goes down, and up again
STEP = 2  # frames over which a rise of the voice is measured
LEAST, MOST = 0.5, 2.0  # rises, in deviations of the loudness: smaller ones are no stress, larger ones count as this
SLOT = 0.7  # seconds; the stresses within a slot are nodded to alike
UPWARDS = 0.2  # share of slots in which the head goes up instead
STREAM = 3  # of random numbers; HeadMovements has the one before


def nods(loud: Tensor, seed: int, first_frame: int, count: int, fps: int) -> Tensor:
    """How far the head is down, [count], within -1 ... 1; 0 where nothing was stressed.

    loud: the voice's loudness in deviations from its mean, [n + count]; the first n frames are the ones before.
    """
    kernel = nod_shape(fps)
    wanted = STEP + len(kernel) - 1 + count
    heard = torch.cat([loud[:1].expand(max(0, wanted - len(loud))), loud])[-wanted:].cpu().float()
    stress = ((heard[STEP:] - heard[:-STEP] - LEAST) / (MOST - LEAST)).clamp(0, 1)
    frames = first_frame + count - len(stress) + np.arange(len(stress))
    stress = stress * _strengths(seed, np.floor(frames / fps / SLOT).astype(int))
    return torch.tanh(stress.unfold(0, len(kernel), 1) @ kernel.flip(0))


def nod_shape(fps: int) -> Tensor:
    """How far the head is down in the frames after a stress, at most 1."""
    seconds = torch.arange(1, math.ceil((FALLS + RISES) * fps)) / fps
    down = torch.sin(math.pi / 2 * seconds / FALLS).square()
    up = torch.cos(math.pi / 2 * (seconds - FALLS) / RISES).square()
    return torch.where(seconds < FALLS, down, up)


def _strengths(seed: int, slots: np.ndarray) -> Tensor:
    """The strength of the nods in each slot, -1 ... 1."""
    strengths = {}
    for slot in {*slots.tolist()}:
        random = np.random.default_rng([seed % 2**64, STREAM, slot + 2])
        strengths[slot] = random.uniform() * (-1 if random.random() < UPWARDS else 1)
    return torch.tensor([strengths[slot] for slot in slots.tolist()])
