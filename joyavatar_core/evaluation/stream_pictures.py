"""Clips and an avatar's latents as a stream would have them, for the refiner: pictures of its size, features, eyes."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import ArrayAudio, AudioFeatures
from ..audio.features import ungroup_frames
from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT
from ..pipeline.avatar import Avatar
from ..synthetic.clips import Clip
from ..synthetic.moment import Moment
from ..video.portrait import to_uint8

OPEN = 0.6  # lids that are less open than this, of 1 at rest, are closing
GAZE = [Moment._fields.index(name) for name in ("gaze_x", "gaze_y")]
SCALE = 2  # the refined side, in sides of the stream's picture


def decoded(avatar: Avatar, latents: Tensor) -> np.ndarray:
    """Latents [1, 16, L, h, w] as uint8 frames [T, H, W, 3]."""
    return to_uint8(avatar.decoder.decode(latents.float())[0]).numpy()


def features_of(clip: Clip, avatar: Avatar) -> Tensor:
    """The audio features of every frame of a clip, [T, audio_dim], as a stream of the avatar has them."""
    config, voice = avatar.config, ArrayAudio(clip.waveform, clip.sample_rate)
    audio = AudioFeatures(voice, avatar.encoder, config.fps, config.block_frames)
    latents = -(-len(clip.frames) // VIDEO_FRAMES_PER_LATENT)
    return ungroup_frames(audio.latent_features(0, latents), 0)[: len(clip.frames)]


def eye_changes(lids: np.ndarray, tracks: np.ndarray, portrait: int) -> Tensor:
    """How the eyes differ from those of one frame, the portrait: [T, 3] as `EyeMovements` gives them.

    lids [T, 1 or 2] and tracks [T, 20] of a clip.
    """
    opened = lids.mean(1)
    closure = np.clip(1 - opened / max(opened[portrait], OPEN), -0.5, 1)
    gaze = tracks[:, GAZE] - tracks[portrait, GAZE]
    return torch.from_numpy(np.column_stack([closure, gaze])).float()


def as_pictures(frames: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def stream_size(clip: Clip, avatar: Avatar) -> Clip:
    """The clip's pictures at the avatar's own size. Raises AvatarError unless they are SCALE times as large."""
    side = avatar.config.width
    if clip.frames.shape[1:3] != (SCALE * side, SCALE * side):
        height, width = clip.frames.shape[1:3]
        raise AvatarError(
            f"The clips are {width}x{height}, expected {SCALE * side}x{SCALE * side} for a refiner of {side}x{side}; "
            "make clips of that size with the command 'data'."
        )

    def halved(frames: np.ndarray) -> np.ndarray:
        pictures = F.avg_pool2d(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), SCALE)
        return pictures.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    return dataclasses.replace(clip, frames=halved(clip.frames), portraits=halved(clip.portraits))
