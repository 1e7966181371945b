"""Seams: where one block of a stream ends and the next begins, and how much more the picture changes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..sampling.stream import LatentBlock


@dataclass(frozen=True)
class Seams:
    """Numbers of a video's frames: the first of each block, those where URCR reset, and those behind a gap.

    A frame behind a gap does not follow the one before it, so the change there says nothing.
    """

    starts: Sequence[int]
    resets: Sequence[int] = ()
    gaps: Sequence[int] = ()

    @classmethod
    def of(cls, blocks: Sequence[LatentBlock], shown: np.ndarray) -> Seams:
        """Those of the frames of a stream that `shown` [n] numbers, in ascending order."""
        place = {int(frame): k for k, frame in enumerate(shown)}
        gaps = {int(k) + 1 for k in np.flatnonzero(np.diff(shown) > 1)}
        known = [block for block in blocks if block.first_frame in place]
        starts = {place[block.first_frame] for block in known} | gaps
        resets = {place[block.first_frame] for block in known if block.reset} - gaps
        return cls(sorted(starts), sorted(resets), sorted(gaps))

    def ratios(self, frames: np.ndarray) -> dict[str, float | None]:
        """How much a video [T, H, W, 3] uint8 changes between blocks, as a multiple of its changes inside blocks.

        `seam`: where the later block begins without a reset; `reset_seam`: with one. 1: no seam shows. None: there are
        no such blocks.
        """
        changes = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)])
        inside = np.ones(len(changes), bool)
        inside[[start - 1 for start in self.starts if 0 < start <= len(changes)]] = False
        usual = max(changes[inside].mean(), 1e-6)
        named = {"seam": {*self.starts} - {*self.resets, *self.gaps}, "reset_seam": {*self.resets}}
        found = {name: [changes[k - 1] for k in seams if 0 < k <= len(changes)] for name, seams in named.items()}
        return {name: float(np.mean(some) / usual) if some else None for name, some in found.items()}
