"""The conversions of geometry.py, held against the autoencoder and the transformer themselves."""

from __future__ import annotations

import pytest
import torch

from joyavatar_core import geometry
from joyavatar_core.audio.clock import latent_to_frames
from joyavatar_core.vae import random_weights_vae


@pytest.mark.parametrize("pixel_size", [(32, 16), (16, 48)])
def test_sizes_are_those_of_the_autoencoder(pixel_size):
    width, height = pixel_size
    vae = random_weights_vae(4)
    latents = vae.encode(torch.zeros(1, 3, 5, height, width))
    latent_size = geometry.to_latent_size(pixel_size)
    assert latents.shape == (1, geometry.LATENT_CHANNELS, geometry.to_latent_frames(5), *latent_size[::-1])
    assert geometry.to_pixel_size(latent_size) == pixel_size
    frames = vae.decode(latents)
    assert frames.shape == (1, 3, geometry.to_video_frames(latents.shape[2]), height, width)


def test_tokens_are_those_of_the_transformer(model):
    latents = torch.zeros(1, model.config.in_channels, 1, 4, 6)
    tokens = model.patch_embedding(latents)[0, 0, 0]
    assert geometry.to_token_size((6, 4)) == tuple(tokens.shape[::-1])
    assert geometry.tokens_per_frame((6, 4)) == tokens.numel() == len(model.rope([0], 4, 6))


@pytest.mark.parametrize("video_frames", range(12))
def test_frames_are_those_of_the_clock(video_frames):
    latent_frames = geometry.to_latent_frames(video_frames)
    shown = [frame for frame_id in range(latent_frames) for frame in latent_to_frames(frame_id)]
    assert shown == list(range(geometry.to_video_frames(latent_frames)))
    assert geometry.to_video_frames(latent_frames - 1) < video_frames <= len(shown) or video_frames == 0
