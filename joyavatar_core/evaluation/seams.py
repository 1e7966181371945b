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
        """`seam_ratio` of a video [T, H, W, 3] uint8 between blocks without and with a reset; None: there are none."""
        plain = sorted({*self.starts} - {*self.resets, *self.gaps, 0})
        named = {"seam": plain, "reset_seam": self.resets}
        return {name: seam_ratio(frames, some, self.starts) if some else None for name, some in named.items()}


def seam_ratio(frames: np.ndarray, seams: Sequence[int], starts: Sequence[int] | None = None) -> float:
    """Step between frames at `seams` against the steps inside blocks; 1 means that no seam shows.

    seams: frames behind a seam; starts: all blocks' first frames, where `seams` are only some of them.
    """
    steps = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)])
    inside = np.ones(len(steps), bool)
    inside[[start - 1 for start in (starts or seams) if 0 < start <= len(steps)]] = False
    chosen = steps[[seam - 1 for seam in seams if 0 < seam <= len(steps)]]
    return float(chosen.mean() / max(steps[inside].mean(), 1e-6)) if len(chosen) else float("nan")
