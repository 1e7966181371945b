"""Exact arithmetic between audio samples, video frames, latent frames and blocks: integers only, no drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT, to_latent_frames

SAMPLE_RATES = range(4000, 384001)
MAX_FPS = 240


def latent_to_frames(latent: int) -> range:
    """Video frames that latent frame `latent` stands for: 0 -> 0...0, g >= 1 -> 4g-3...4g."""
    last = VIDEO_FRAMES_PER_LATENT * latent
    return range(max(0, last - VIDEO_FRAMES_PER_LATENT + 1), last + 1)


def block_to_latents(block: int, block_frames: int, lead: int = 0) -> range:
    """Latent frames of block `block` of K latent frames; block 0 has `lead` more, in front."""
    start = block * block_frames
    return range(start + (lead if block else 0), start + lead + block_frames)


def block_of_latent(latent: int, block_frames: int, lead: int = 0) -> int:
    """The block that a latent frame belongs to."""
    return max(0, latent - lead) // block_frames


def block_to_frames(block: int, block_frames: int, lead: int = 0) -> range:
    """Video frames of block `block` of K latent frames: without a lead 0...4(K-1), then 4K each."""
    latents = block_to_latents(block, block_frames, lead)
    return range(latent_to_frames(latents[0]).start, latent_to_frames(latents[-1]).stop)


def num_blocks(video_frames: int, block_frames: int, lead: int = 0) -> int:
    """Number of blocks of `block_frames` latent frames that cover `video_frames` video frames."""
    latent_frames = to_latent_frames(video_frames)
    return max(min(latent_frames, 1), -(-(latent_frames - lead) // block_frames))


def check_sample_rate(sample_rate: int) -> int:
    """The sample rate in Hz as an int; raises AvatarError where it is no plausible one."""
    if sample_rate not in SAMPLE_RATES:  # also false for fractions, NaN, infinity and None
        raise AvatarError(
            f"The audio's sample rate is {sample_rate} Hz, expected a whole number from {SAMPLE_RATES[0]} to "
            f"{SAMPLE_RATES[-1]}; resample the audio."
        )
    return int(sample_rate)


@dataclass(frozen=True)
class Clock:
    """Which audio samples belong to which video frame.

    `sample_rate` in Hz; `fps` an int or a Fraction (30000/1001). Raises AvatarError for rates that cannot be.
    """

    sample_rate: int
    fps: int | Fraction

    def __post_init__(self) -> None:
        check_sample_rate(self.sample_rate)
        if not isinstance(self.fps, (int, Fraction)) or not 1 <= self.fps <= MAX_FPS:
            raise AvatarError(f"fps is {self.fps}, expected an integer or a Fraction from 1 to {MAX_FPS}.")

    def frame_start(self, frame: int) -> int:
        """First sample of a video frame: floor(frame * sample_rate / fps); also for frames before 0."""
        return math.floor(frame * self.sample_rate / Fraction(self.fps))

    def frame_samples(self, frames: range) -> tuple[int, int]:
        """Samples [start, stop) of a range of video frames."""
        return self.frame_start(frames.start), self.frame_start(frames.stop)

    def num_frames(self, samples: int) -> int:
        """Video frames needed to show `samples` samples: as long as the audio to within one frame, at least 1."""
        return max(1, math.ceil(samples * Fraction(self.fps) / self.sample_rate))
