"""Converts a `Moment` to the weights of 52 ARKit face units, gaze and head pose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..moment import Moment
from .transforms import direction

UNIT = 1 / 128  # of the picture's side: what a Moment's x and y count in
GAZE = (0.42, 0.32)  # radians of a gaze of 1, across and up
CHEEKS = (0.45, 0.4)  # how far a smile, and its teeth, raise them
CONVERGENCE = 0.03  # radians: how far both eyes turn in


class Rest(NamedTuple):
    """The expression of a face at rest. It stays while the person talks."""

    smile: float = 0.08
    teeth: float = 0.0  # 0..1.2: an open smile; pressed lips still close
    wide: float = 0.04  # of the lids
    lift: float = 0.12  # of the brows' inner ends: without it faces look stern
    cheeks: float = 0.0  # how much further they are raised than the smile and its teeth raise them


class Pose(NamedTuple):
    """The pose of the head and the eyes."""

    yaw: float  # radians, to the picture's right
    pitch: float  # radians, down
    roll: float  # radians, anticlockwise
    gaze: tuple[float, float]  # radians, to the picture's right and up
    shift: tuple[float, float]  # of half the picture's side, to the right and up
    breath: float  # 0..1

    def gaze_directions(self) -> np.ndarray:
        """[2, 3]: where the eye at +x and the one at -x look."""
        across, up = self.gaze
        return np.stack([direction(across + side * CONVERGENCE, up) for side in (-1, 1)])


def head_pose(moment: Moment) -> Pose:
    """The pose of a moment; a Moment's pitch is up, its roll clockwise and its y down."""
    return Pose(
        moment.yaw, -moment.pitch, -moment.roll, (GAZE[0] * moment.gaze_x, GAZE[1] * moment.gaze_y),
        (2 * UNIT * moment.x, -2 * UNIT * moment.y), moment.breath,
    )  # fmt: skip


def face_units(moment: Moment, names: dict[str, int], rest: Rest) -> np.ndarray:
    """[52] weights; `names` gives each unit's place. A name without Left or Right means both sides."""
    weights = np.zeros(len(names), np.float32)

    def add(name: str, value: float) -> None:
        for full in (name,) if name in names else (f"{name}Left", f"{name}Right"):
            weights[names[full]] += max(value, 0.0)

    m = moment
    opened, spread, pursed = max(m.open, 0.0), max(m.spread, 0.0), m.round + 0.4 * max(-m.spread, 0.0)
    apart, smile = 1 - m.press, max(m.smile, 0.0)
    shown = rest.teeth * apart * (1 - 0.6 * min(pursed, 1)) * (1 - 0.6 * min(opened, 1))
    # The jaw, and the lips' outline.
    add("jawOpen", 0.65 * opened + 0.05 * m.teeth * apart + 0.1 * shown)
    add("mouthPucker", 1.5 * pursed * (1 - 0.25 * min(opened, 1)) * apart)
    add("mouthFunnel", 0.6 * m.round * (0.35 + 0.65 * min(opened, 1)) * apart)
    add("mouthStretch", 0.85 * spread * apart)
    add("mouthDimple", 0.4 * spread * apart)
    add("mouthSmile", (0.14 * spread + 0.5 * smile + rest.smile + 0.6 * rest.teeth) * (1 - 0.5 * min(pursed, 1)))
    # The lips' edges: teeth shown, the lower lip under the teeth, lips pressed.
    add("mouthUpperUp", (0.15 * m.teeth + 0.3 * m.tuck + 0.12 * opened * (1 - m.round)) * apart + 0.55 * shown)
    add("mouthLowerDown", (0.4 * m.teeth + 0.1 * opened) * apart + 0.55 * shown)
    add("mouthRollLower", 0.7 * m.tuck + 0.35 * m.press)
    add("mouthRollUpper", 0.35 * m.press)
    add("mouthShrugLower", 0.2 * m.press)
    add("tongueOut", 0.22 * m.tongue * min(3 * opened, 1))
    # Moods.
    add("mouthFrown", -0.5 * m.smile)
    add("mouthShrugLower", -0.2 * m.smile)
    add("cheekSquint", CHEEKS[0] * smile + 0.3 * m.squint + CHEEKS[1] * rest.teeth + rest.cheeks)
    add("browInnerUp", rest.lift + 0.45 * max(m.lift, 0) + 0.7 * max(m.worry, 0))
    add("browOuterUp", 0.65 * m.lift)
    add("browDown", 0.35 * max(-m.lift, 0) + 0.25 * max(-m.worry, 0))
    # Eyes.
    add("eyeBlink", min(1 - m.lid, 1.0))
    add("eyeWide", max(2.2 * (m.lid - 1), 0) + rest.wide)
    add("eyeSquint", 0.6 * m.squint)
    for side, outwards in (("Left", m.gaze_x), ("Right", -m.gaze_x)):
        add(f"eyeLookOut{side}", 0.6 * outwards)
        add(f"eyeLookIn{side}", -0.6 * outwards)
        add(f"eyeLookUp{side}", 0.6 * m.gaze_y)
        add(f"eyeLookDown{side}", -0.6 * m.gaze_y)
    return weights
