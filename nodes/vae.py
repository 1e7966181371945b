"""The host's VAE as a streaming decoder: the same weights, with a cache between blocks."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.device import quick_dtype
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.geometry import Size, to_pixel_size
from ..joyavatar_core.pipeline.avatar import EMBEDDED, load_decoder, load_vae
from ..joyavatar_core.pipeline.embedded import EMBEDDED_DECODER
from ..joyavatar_core.sampling.memory import decoder_bytes
from ..joyavatar_core.vae import WAN_MEAN, WAN_STD, StreamingVAE, TinyDecoder, VAECache, vae_from_state_dict
from .model import HostAvatar
from .patcher import host_patcher

BLOCK = 3  # latent frames of a block of the public checkpoints
SHARE = 0.25  # of a GPU's memory that decoding a block at once may take
Statistics = tuple[tuple[float, ...] | None, tuple[float, ...] | None]
_known: WeakKeyDictionary[object, dict[object, HostDecoder]] = WeakKeyDictionary()  # per VAE, or avatar without one


class HostDecoder:
    """A `Decoder` whose weights the host loads and offloads.

    It computes on `compute_device`; the weights may be elsewhere between two calls. Made by `streaming_vae`.
    """

    compute_dtype = torch.float32  # of latents; the module casts them to its weights' dtype

    def __init__(self, module: StreamingVAE | TinyDecoder, device: torch.device, offload: torch.device) -> None:
        self.module = module
        self.compute_device = device
        self.patcher = host_patcher(module, device, offload)

    def new_cache(self) -> VAECache:
        return self.module.new_cache()

    def decode(self, latents: Tensor, cache: VAECache | None = None) -> Tensor:
        """Normalised latents [1, 16, t, h, w] -> frames [1, 3, T, 8h, 8w] in [-1, 1].

        Stop is noticed between two calls of the module.
        """
        cache = self.new_cache() if cache is None else cache
        at_once = self.at_once(to_pixel_size(tuple(latents.shape[:-3:-1])))
        parts = []
        for some in latents.to(self.compute_device).split(at_once, dim=2):
            mm.throw_exception_if_processing_interrupted()
            parts.append(self.module.decode(some, cache))
        return torch.cat(parts, dim=2)

    def at_once(self, pixel_size: Size) -> int:
        """Latent frames decoded in one call: BLOCK of them on a GPU with room for that, which is faster; else one."""
        if self.compute_device.type != "cuda":
            return 1
        return BLOCK if self._bytes(pixel_size, BLOCK) < SHARE * mm.get_total_memory(self.compute_device) else 1

    def working_bytes(self, pixel_size: Size) -> int:
        """Bytes alive while latent frames are decoded."""
        return self._bytes(pixel_size, self.at_once(pixel_size))

    def _bytes(self, pixel_size: Size, latent_frames: int) -> int:
        return decoder_bytes(pixel_size, self.module.compute_dtype, latent_frames, self.module.kind, self.module.dim)


class HostVAE(HostDecoder):
    """A HostDecoder that encodes as well."""

    def encode(self, picture: Tensor) -> Tensor:
        """A picture [3, H, W] in [-1, 1] -> its normalised latent [1, 16, 1, H/8, W/8]."""
        return self.module.encode(picture[None, :, None].to(self.compute_device))


def streaming_vae(vae: object | None, avatar: HostAvatar) -> HostDecoder:
    """The decoder of a host's VAE object, with the checkpoint's latent statistics; built once for each.

    Without a VAE the embedded avatar gets the decoder that it comes with. Raises AvatarError for a VAE that is not
    Wan2.1's nor in its layout, and where a checkpoint needs one and none is connected.
    """
    if vae is None:
        return _embedded(avatar, encodes=False)
    statistics = (avatar.config.latent_mean, avatar.config.latent_std)
    decoders = _known.setdefault(vae, {})
    if statistics not in decoders:
        decoders[statistics] = _of_host(vae, statistics)
    return decoders[statistics]


def encoding_vae(vae: object | None, avatar: HostAvatar) -> HostVAE:
    """`streaming_vae` for a VAE that is to encode a portrait. Raises AvatarError for a tiny decoder too."""
    found = _embedded(avatar, encodes=True) if vae is None else streaming_vae(vae, avatar)
    if not isinstance(found, HostVAE):
        raise AvatarError("This VAE is a tiny decoder (taew2_1) and cannot encode; use the Wan2.1 VAE here.")
    return found


def _embedded(avatar: HostAvatar, encodes: bool) -> HostDecoder:
    if avatar.name != EMBEDDED:
        raise AvatarError(
            f"'{avatar.name}' comes without a VAE and none is connected; add Load VAE with the Wan2.1 VAE "
            "(wan_2.1_vae)."
        )
    decoders = _known.setdefault(avatar, {})
    if encodes not in decoders:
        config, device = avatar.config, mm.vae_device()
        tiny = not encodes and EMBEDDED_DECODER.exists()
        module = load_decoder(EMBEDDED_DECODER, config) if tiny else load_vae(EMBEDDED, config)
        dtype = mm.vae_dtype(device, [torch.bfloat16])  # float32 on a CPU
        if not encodes and device.type == "cpu":
            dtype = quick_dtype("cpu") or dtype
        kind = HostVAE if encodes else HostDecoder
        decoders[encodes] = kind(module.to(dtype), device, mm.vae_offload_device())
    return decoders[encodes]


def _of_host(vae: object, statistics: Statistics) -> HostDecoder:
    if not hasattr(vae, "get_sd") or not hasattr(vae, "patcher"):
        raise AvatarError(f"The VAE is a {type(vae).__name__}, expected one from Load VAE (Wan2.1's layout).")
    load, offload = vae.patcher.load_device, vae.patcher.offload_device
    state = {name: tensor.to(offload) for name, tensor in vae.get_sd().items()}
    module = vae_from_state_dict(state, *statistics)
    return (HostVAE if isinstance(module, StreamingVAE) else HostDecoder)(module, load, offload)


def load_together(models: list[ModelPatcher], memory: int = 0) -> None:
    """Have the host load these at once, with `memory` bytes left for what they compute."""
    mm.load_models_gpu(models, memory_required=memory)


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
