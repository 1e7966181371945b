"""The audio adapter: a bias on every token of a frame, as in OmniAvatar and LiveTalk.

There is no audio cross-attention: this bias alone moves the lips.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import VIDEO_FRAMES_PER_LATENT

# Products of few rows take a CPU path that adds 43,008 terms one after another: five times the rounding error.
ACCURATE_ROWS = 32


class AudioProjection(nn.Module):
    """Features of four video frames, flattened with the frame slowest -> the audio embedding of a latent frame."""

    def __init__(self, audio_dim: int, audio_hidden: int, operations=nn, **factory) -> None:
        super().__init__()
        self.proj = operations.Linear(VIDEO_FRAMES_PER_LATENT * audio_dim, audio_hidden, **factory)
        self.norm_out = operations.LayerNorm(audio_hidden, **factory)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, frames, 4, audio_dim] -> [B, frames, audio_hidden]."""
        rows = features.flatten(-2).flatten(0, 1)
        padded = F.pad(rows, (0, 0, 0, max(0, ACCURATE_ROWS - len(rows))))
        embedding = self.proj(padded)[: len(rows)]
        return self.norm_out(embedding).unflatten(0, features.shape[:2])
