"""Device memory of a stream: nodes request it from their host, `inspect` and errors report it.

The figures are those of a run on CUDA. tests/test_memory.py compares them with measured bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ..config import AvatarConfig
from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT, Size, to_latent_size, tokens_per_frame
from .mci import MCI_OFF, MciSettings
from .presets import preset
from .urcr import UrcrSettings

WAN_WIDTH = 96  # base width of Wan2.1's autoencoder
# Numbers per token that a pass holds at its peak, in units of the model's width and of its feed-forward width.
PASS_WIDTHS, PASS_HIDDEN = 6, 2
# The same per video frame in the decoder, in units of its base width times the picture's pixels.
DECODER_WIDTHS = {"wan": 4.8, "tiny": 2.0}
TINY_WIDTH = 64  # of taew2_1's widest layer at full size
WORKSPACE = 3 << 28  # bytes that CUDA's libraries and its context take
DECODER_PARAMETERS = {"wan": 126_892_531, "tiny": 9_844_611}  # at width 96; taew2_1
DECODER_CACHE = {"wan": 24.7, "tiny": 1.4}  # kept from block to block, in the same units as DECODER_WIDTHS


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the device.

    `weights` and `decoder` are parameters; `working` is used within a pass, a decoding and a refining.
    """

    weights: int
    cache: int
    decoder: int
    working: int

    @property
    def total(self) -> int:
        """All of it, with what CUDA itself takes."""
        return self.weights + self.cache + self.decoder + self.working + WORKSPACE


def cache_bytes(
    config: AvatarConfig, latent_size: Size, urcr: UrcrSettings, mci: MciSettings, dtype: torch.dtype
) -> int:
    """Bytes of keys and values."""
    slots = urcr.capacity(config) + mci.injected
    return 2 * config.num_layers * slots * tokens_per_frame(latent_size) * config.dim * dtype.itemsize


def weight_bytes(
    config: AvatarConfig, parameters: int, dtype: torch.dtype, weight_dtype: torch.dtype | None = None
) -> int:
    """Bytes of a transformer of so many parameters; `weight_dtype` is that of its blocks' linear layers."""
    inside = config.num_layers * config.dim * (8 * config.dim + 2 * config.ffn_dim)
    return parameters * dtype.itemsize + min(inside, parameters) * ((weight_dtype or dtype).itemsize - dtype.itemsize)


def pass_bytes(config: AvatarConfig, latent_size: Size, dtype: torch.dtype) -> int:
    """Bytes that one forward over a block (or a rolling window) holds at its peak."""
    tokens = config.window_frames * tokens_per_frame(latent_size)
    return tokens * (PASS_HIDDEN * config.ffn_dim + PASS_WIDTHS * config.dim) * dtype.itemsize


def decoder_bytes(
    pixel_size: Size, dtype: torch.dtype, latent_frames: int = 3, kind: str = "wan", base: int = WAN_WIDTH
) -> int:
    """Bytes of decoding `latent_frames` latent frames at once, with the decoder's cache."""
    pixels, channels = prod(pixel_size), base if kind == "wan" else TINY_WIDTH
    video_frames = VIDEO_FRAMES_PER_LATENT * latent_frames
    widest = DECODER_WIDTHS[kind] * video_frames * channels * pixels
    pictures = 3 * video_frames * 3 * pixels * torch.float32.itemsize  # the frames and two copies of them
    return int((widest + DECODER_CACHE[kind] * channels * pixels) * dtype.itemsize + pictures)


def memory_needed(
    config: AvatarConfig,
    parameters: int,
    pixel_size: Size,
    *,
    urcr: UrcrSettings | None = None,
    mci: MciSettings = MCI_OFF,
    dtype: torch.dtype = torch.bfloat16,
    weight_dtype: torch.dtype | None = None,
    kv_dtype: torch.dtype | None = None,
    decoder: str | None = "wan",
    base: int = WAN_WIDTH,
    latent_frames: int = 3,
    ranks: int = 1,
) -> MemoryNeed:
    """What a stream takes on one device.

    parameters: of the transformer. urcr None: that of the checkpoint's own preset. weight_dtype (of the blocks' linear
    layers), kv_dtype: where they differ from what is computed in. decoder: "wan", at base width `base`, or "tiny"; None
    where another device decodes. latent_frames: decoded at once. ranks: devices that share each pass, and with it the
    keys and values.
    """
    latent_size = to_latent_size(pixel_size)
    urcr = preset("checkpoint", config).urcr if urcr is None else urcr
    share = (base / WAN_WIDTH) ** 2 if decoder == "wan" else 1.0
    working = pass_bytes(config, latent_size, dtype) // ranks
    if decoder is not None:
        working += decoder_bytes(pixel_size, dtype, latent_frames, decoder, base)
    return MemoryNeed(
        weights=weight_bytes(config, parameters, dtype, weight_dtype),
        cache=cache_bytes(config, latent_size, urcr, mci, kv_dtype or dtype) // ranks,
        decoder=int(DECODER_PARAMETERS[decoder] * share) * dtype.itemsize if decoder is not None else 0,
        working=working,
    )


def check_memory(need: MemoryNeed, free: int) -> None:
    """Raise AvatarError, before the first block, where a device has too little memory left, with settings to change."""
    if need.total <= free:
        return
    gib = 2.0**30
    raise AvatarError(
        f"This stream takes about {need.total / gib:.1f} GiB on the device ({need.weights / gib:.1f} weights, "
        f"{need.cache / gib:.1f} keys and values, {(need.decoder + need.working) / gib:.1f} passes, decoding and "
        f"refining) and {free / gib:.1f} GiB are free; use fp8 keys and values, fp8 weights, a tiny decoder, a smaller "
        "picture, or the CPU.",
        "kv_dtype",
        "decoder",
        "size",
        "device",
    )
