"""Random numbers of a face's movements: one sequence for each of them, so that none depends on another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

SEEDS = 2**64


class Draws(IntEnum):
    """What random numbers are drawn for. The numbers must not change: a resumed stream moves as it did before."""

    BLINKS = 0
    GAZES = 1
    HEAD = 2
    NODS = 3
    BROWS = 4

    def generator(self, seed: int, *slot: int) -> np.random.Generator:
        """The numbers of a stream's seed; slot: of a stretch of time, from -2 on."""
        return np.random.default_rng([seed % SEEDS, int(self), *(number + 2 for number in slot)])
