"""The frame rate of refined frames, which may be higher than the stream's. The definition is this project's own."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..device import to_device
from ..errors import AvatarError

MOST_FPS = 60


@dataclass(frozen=True)
class FrameRate:
    """Frames at `fps` frames per second of a stream that has `stream_fps`.

    Frame j shows the moment (j + 1) * stream_fps / fps - 1, counted in frames of the stream, or the first frame if that
    is before it. So a block of the stream gives only frames whose moments are at or before its last frame, and behind
    the last frame of the block before. Raises AvatarError for an `fps` below the stream's or above MOST_FPS.
    """

    stream_fps: int
    fps: int

    def __post_init__(self) -> None:
        whole = isinstance(self.fps, int) and self.stream_fps <= self.fps <= MOST_FPS
        if not whole and self.fps != self.stream_fps:
            raise AvatarError(
                f"fps is {self.fps}, expected a whole number from {self.stream_fps}, the stream's, to {MOST_FPS}.",
                "fps",
            )

    @property
    def changes(self) -> bool:
        """Whether there are more frames than the stream has."""
        return self.fps != self.stream_fps

    def shown(self, frames: range) -> range:
        """The frames that a block of the stream gives. frames: the stream's, without a gap."""
        return range(*(int(at * Fraction(self.fps) / self.stream_fps) for at in (frames.start, frames.stop)))

    def moments(self, shown: range, origin: int) -> Tensor:
        """The moments of frames, counted in frames of the stream from its frame `origin`, [n] float32."""
        step = Fraction(self.stream_fps) / self.fps
        return torch.tensor([float((frame + 1) * step - 1 - origin) for frame in shown])


def chosen_rate(stream_fps: int, fps: int | None, refined: bool) -> FrameRate:
    """The rate of frames for which `fps` was asked, None for the stream's.

    refined: whether the frames are refined. Raises AvatarError where they cannot have that rate.
    """
    if fps not in (None, stream_fps) and not refined:
        raise AvatarError(
            f"fps is {fps}, expected {stream_fps}, the stream's; only refined frames can have another rate.", "fps"
        )
    return FrameRate(stream_fps, stream_fps if fps is None else fps)


def at_moments(values: Tensor, moments: Tensor) -> Tensor:
    """Values [n, ...] between moments 0 ... n - 1, linearly; the first and the last hold beyond. moments: [m]."""
    away = (moments.clamp(0, len(values) - 1)[:, None] - torch.arange(len(values))).abs()
    shares = to_device((1 - away).clamp(min=0), values.device)
    return (shares @ values.flatten(1)).unflatten(1, values.shape[1:])
