"""Clips and an avatar's latents as a stream would have them, for the refiner: pictures of its size, and features."""

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
from ..video.portrait import to_uint8

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
