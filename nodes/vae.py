"""The host's VAE as a decoder that streams: the same weights, with a cache that goes from block to block."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.vae import WAN_MEAN, WAN_STD, StreamingVAE, TinyDecoder, VAECache, vae_from_state_dict

Statistics = tuple[tuple[float, ...] | None, tuple[float, ...] | None]
_known: WeakKeyDictionary[object, dict[Statistics, HostDecoder]] = WeakKeyDictionary()  # per VAE object of the host


class HostDecoder:
    """A streaming VAE whose weights the host loads and offloads.

    It works on the host's device wherever the weights are at the moment; made by `streaming_vae`.
    """

    def __init__(self, module: StreamingVAE | TinyDecoder, like: object) -> None:
        self.module = module
        self.patcher = ModelPatcher(module, like.patcher.load_device, like.patcher.offload_device)
        self.device = like.patcher.load_device

    def new_cache(self) -> VAECache:
        return self.module.new_cache()

    def parameters(self) -> Iterator[Tensor]:
        """What tells a caller where latents should be; the weights themselves may be elsewhere."""
        yield torch.empty(0, device=self.device)

    def decode(self, latents: Tensor, cache: VAECache | None = None) -> Tensor:
        """Normalised latents [1, 16, t, h, w] -> frames [1, 3, T, 8h, 8w] in [-1, 1]."""
        return self.module.decode(latents.to(self.device), cache)

    def encode(self, picture: Tensor) -> Tensor:
        """A picture [3, H, W] in [-1, 1] -> its normalised latent [1, 16, 1, H/8, W/8]."""
        if isinstance(self.module, TinyDecoder):
            raise AvatarError("This VAE is a tiny decoder (taew2_1) and cannot encode; use the Wan2.1 VAE here.")
        return self.module.encode(picture[None, :, None].to(self.device))


def streaming_vae(vae: object, config: AvatarConfig) -> HostDecoder:
    """The decoder of a host's VAE object, with the checkpoint's latent statistics; built once for each.

    Raises AvatarError for a VAE that is not Wan2.1's, nor in its layout.
    """
    if not hasattr(vae, "get_sd") or not hasattr(vae, "patcher"):
        raise AvatarError(f"The VAE is a {type(vae).__name__}, expected one from Load VAE (Wan2.1's layout).")
    statistics = (config.latent_mean, config.latent_std)
    decoders = _known.setdefault(vae, {})
    if statistics not in decoders:
        state = {name: tensor.to(vae.patcher.offload_device) for name, tensor in vae.get_sd().items()}
        decoders[statistics] = HostDecoder(vae_from_state_dict(state, *statistics), vae)
    return decoders[statistics]


def load_together(models: list[ModelPatcher], memory: int = 0) -> None:
    """Have the host load these at once, with `memory` bytes left for what they compute."""
    mm.load_models_gpu(models, memory_required=memory)


def decoding_bytes(vae: object, height: int, width: int) -> int:
    """What the host reckons for decoding one latent frame [height, width]."""
    return int(vae.memory_used_decode((1, 16, 1, height, width), vae.vae_dtype))


def to_host(latents: Tensor, config: AvatarConfig) -> Tensor:
    """Normalised latents [B, 16, T, h, w] in the scale of the host's LATENT (the VAE's own)."""
    mean, std = _statistics(config, latents)
    return latents.float() * std + mean


def from_host(latents: Tensor, config: AvatarConfig) -> Tensor:
    """A LATENT's samples normalised by the checkpoint's statistics."""
    mean, std = _statistics(config, latents)
    return (latents.float() - mean) / std


def _statistics(config: AvatarConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    given = (config.latent_mean or WAN_MEAN, config.latent_std or WAN_STD)
    return tuple(torch.tensor(values, device=like.device).view(1, -1, 1, 1, 1) for values in given)
