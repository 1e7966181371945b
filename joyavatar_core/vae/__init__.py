"""Latents to frames and back: the Wan2.1 VAE at any width, and the tiny decoder taew2_1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from torch import Tensor

from .cache import VAECache
from .decoder import Decoder
from .random_vae import random_state_dict, random_weights_vae
from .state_dicts import TINY_MARK
from .tiny import TinyDecoder
from .wan import WAN_MEAN, WAN_STD, StreamingVAE

__all__ = [
    "WAN_MEAN", "WAN_STD", "Decoder", "StreamingVAE", "TinyDecoder", "VAECache", "random_state_dict",
    "random_weights_vae", "vae_from_state_dict",
]  # fmt: skip


def vae_from_state_dict(
    state: Mapping[str, Tensor], mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    operations: ModuleType | None = None,
) -> StreamingVAE | TinyDecoder:  # fmt: skip
    """The autoencoder or decoder these tensors are: StreamingVAE (any width) or TinyDecoder (taew2_1).

    `mean` and `std` override Wan's latent statistics. Raises AvatarError for every other state dict.
    """
    if any(name.endswith(TINY_MARK) for name in state):
        return TinyDecoder.from_state_dict(state, operations)
    return StreamingVAE.from_state_dict(state, mean, std, operations)
