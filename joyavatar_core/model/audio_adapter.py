"""How the voice enters: a small bias on every token of a frame, as in OmniAvatar and LiveTalk.

There is no audio cross-attention; lips move because of this bias alone.
"""

from __future__ import annotations

from torch import Tensor, nn


class AudioProjection(nn.Module):
    """Four video frames' features, flattened with the frame slowest -> a few numbers per latent frame."""

    def __init__(self, audio_dim: int, hidden: int, operations=nn, **factory) -> None:
        super().__init__()
        self.proj = operations.Linear(4 * audio_dim, hidden, **factory)
        self.norm_out = operations.LayerNorm(hidden, **factory)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, frames, 4, audio_dim] -> [B, frames, hidden]."""
        return self.norm_out(self.proj(features.flatten(-2)))
