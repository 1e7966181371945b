"""Labels of a drawn or rendered face."""

from __future__ import annotations

from typing import NamedTuple

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


class FaceLabels(NamedTuple):
    """One frame's truth; of pairs, the one on the picture's left comes first."""

    opening: float  # between the lips, pixels
    width: float  # from corner to corner of the mouth, pixels
    box: Box  # around the mouth and where it may go
    eyes: tuple[Box, Box]
    lids: tuple[float, float]  # 0 closed, 1 as at rest, more when wide
    face: Box  # chin to hairline, cheek to cheek
    pose: tuple[float, float, float]  # radians: yaw to the picture's right, pitch up, roll clockwise
