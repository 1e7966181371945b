"""How a refined face moves: what a user chooses."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AvatarError


@dataclass(frozen=True)
class FaceMotion:
    """How the refined face moves.

    blinks: mean number in a minute, 0 ... 60. articulation: factor of the visemes, 0 ... 3; the lips move farther with
    it. head_motion: factor of the head's and the brows' movements, 0 ... 3. Raises AvatarError for other values.
    fps: frames per second, None for the stream's; `chosen_rate` checks it.
    """

    blinks: float = 17.0
    articulation: float = 1.0
    head_motion: float = 1.0
    fps: int | None = None

    def __post_init__(self) -> None:
        for name, most in (("blinks", 60), ("articulation", 3), ("head_motion", 3)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise AvatarError(f"{name} is {value}, expected a number from 0 to {most}.", name)


USUAL_MOTION = FaceMotion()
