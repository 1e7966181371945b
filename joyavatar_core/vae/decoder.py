"""Decoder: what the engine asks of everything that turns latents into frames."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .cache import VAECache


class Decoder(Protocol):
    """Normalised latents -> frames, one block after another without seams.

    StreamingVAE and TinyDecoder are decoders, and so is the host's VAE in `nodes/vae.py`.
    """

    @property
    def compute_device(self) -> torch.device:
        """Where latents must be. Not `device`: ComfyUI sets that attribute on the modules it loads."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the latents."""

    def new_cache(self) -> VAECache:
        """An empty cache: one per stream."""

    def decode(self, latents: Tensor, cache: VAECache | None = None) -> Tensor:
        """Normalised latents [B, 16, t, h, w] -> frames [B, 3, T, 8h, 8w] in [-1, 1], float32.

        T is 1 + 4 (t - 1) with a new cache or none, 4t with a cache that an earlier call has filled.
        """


class DecoderModule(nn.Module):
    """The part of a Decoder that StreamingVAE and TinyDecoder share.

    kind: which figures of memory apply, a key of `sampling.memory.DECODER_WIDTHS`. dim: base width in channels.
    at_once: latent frames decoded in one pass; None for all of a call on CUDA and one elsewhere.
    """

    kind: str
    dim: int
    at_once: int | None = None

    @property
    def compute_device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def compute_dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def new_cache(self) -> VAECache:
        """An empty cache: one per stream and direction."""
        return VAECache()

    def latents_at_once(self, latents: Tensor) -> int:
        """How many latent frames of [B, t, h, w, C] one pass takes."""
        return self.at_once or (latents.shape[1] if latents.is_cuda else 1)
