"""The motion parameters of a face at one instant: `motion` makes them, figures draw them."""

from __future__ import annotations

from typing import NamedTuple


class MouthShape(NamedTuple):
    """What a viseme sets: all 0..1 but `spread`, which is -1..1."""

    open: float = 0.0  # jaw
    spread: float = 0.0  # corners pulled apart
    round: float = 0.0  # pucker
    teeth: float = 0.0  # rows held together, as in s, z, ee
    tongue: float = 0.0  # tip raised, as in l, th, n
    tuck: float = 0.0  # lower lip under the upper teeth, as in f, v
    press: float = 0.0  # lips pressed together, as in m, b, p


class Moment(NamedTuple):
    """All motion parameters at one instant."""

    yaw: float = 0.0  # radians, to the picture's right
    pitch: float = 0.0  # radians, up
    roll: float = 0.0  # radians, clockwise
    x: float = 0.0  # 1/128 of the side
    y: float = 0.0
    breath: float = 0.0  # 0..1
    gaze_x: float = 0.0  # -1..1
    gaze_y: float = 0.0
    lid: float = 1.0  # 0 closed .. 1.2 wide
    squint: float = 0.0
    lift: float = 0.0  # of the brows
    worry: float = 0.0  # of the brows' inner ends; below 0: a frown
    smile: float = 0.0  # -1..1
    open: float = 0.0  # from here on: MouthShape
    spread: float = 0.0
    round: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0
    tuck: float = 0.0
    press: float = 0.0

    @property
    def mouth(self) -> MouthShape:
        return MouthShape(*self[-len(MouthShape._fields) :])
