"""How much device memory a stream takes: what nodes ask their host for, and what `inspect` and errors say.

The figures are those of CUDA's form of the engine. tests/test_memory.py holds them against measured bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import AvatarConfig
from ..errors import AvatarError
from .mci import MCI_OFF, MciSettings
from .presets import preset
from .urcr import UrcrSettings

WAN_WIDTH = 96  # base width of Wan2.1's autoencoder
# Numbers alive at once in a pass: in units of a token's width, and of its hidden layer.
PASS_WIDTHS, PASS_HIDDEN = 6, 2
# The same in the decoder, a video frame, in units of the base width times the picture's pixels.
DECODER_WIDTHS = {"wan": 4.8, "tiny": 2.0}
TINY_WIDTH = 64  # of taew2_1's widest layer at full size
WORKSPACE = 3 << 28  # bytes that CUDA's libraries and its context take
DECODER_PARAMETERS = {"wan": 126_892_531, "tiny": 9_844_611}  # at width 96; taew2_1
DECODER_CACHE = {"wan": 24.7, "tiny": 1.4}  # kept from block to block, in the same units as DECODER_WIDTHS


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the device. `weights` and `decoder` are parameters; `working` is alive within a pass or a decoding."""

    weights: int
    cache: int
    decoder: int
    working: int

    @property
    def total(self) -> int:
        """All of it, with what CUDA itself takes."""
        return self.weights + self.cache + self.decoder + self.working + WORKSPACE


def cache_bytes(
    config: AvatarConfig, height: int, width: int, urcr: UrcrSettings, mci: MciSettings, dtype: torch.dtype
) -> int:
    """Bytes of keys and values for latents of height x width."""
    slots = urcr.capacity(config) + mci.injected
    return 2 * config.num_layers * slots * (height // 2) * (width // 2) * config.dim * dtype.itemsize


def pass_bytes(config: AvatarConfig, height: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that one forward over a block (or a rolling window) holds at its widest."""
    tokens = config.window_frames * (height // 2) * (width // 2)
    return tokens * (PASS_HIDDEN * config.ffn_dim + PASS_WIDTHS * config.dim) * dtype.itemsize


def decoder_bytes(
    height: int, width: int, dtype: torch.dtype, latents: int = 3, kind: str = "wan", base: int = WAN_WIDTH
) -> int:
    """Bytes alive while `latents` latent frames of height x width are decoded at once, with what is kept between."""
    pixels, channels = 64 * height * width, base if kind == "wan" else TINY_WIDTH
    widest = DECODER_WIDTHS[kind] * 4 * latents * channels * pixels
    pictures = 4 * latents * 3 * pixels * 3 * 4  # float32 frames and two copies of them
    return int((widest + DECODER_CACHE[kind] * channels * pixels) * dtype.itemsize + pictures)


def memory_needed(
    config: AvatarConfig,
    parameters: int,
    size: tuple[int, int],
    *,
    urcr: UrcrSettings | None = None,
    mci: MciSettings = MCI_OFF,
    dtype: torch.dtype = torch.bfloat16,
    weight_dtype: torch.dtype | None = None,
    kv_dtype: torch.dtype | None = None,
    decoder: str = "wan",
    base: int = WAN_WIDTH,
    latents: int = 3,
) -> MemoryNeed:
    """What a stream of `size` (width, height) in pixels takes.

    parameters: of the transformer. urcr None: that of the checkpoint's own preset. weight_dtype, kv_dtype: where they
    differ from what is computed in. decoder: "wan", at base width `base`, or "tiny". latents: decoded at once.
    """
    width, height = size[0] // 8, size[1] // 8
    urcr = preset("checkpoint", config).urcr if urcr is None else urcr
    share = (base / WAN_WIDTH) ** 2 if decoder == "wan" else 1.0
    return MemoryNeed(
        weights=parameters * (weight_dtype or dtype).itemsize,
        cache=cache_bytes(config, height, width, urcr, mci, kv_dtype or dtype),
        decoder=int(DECODER_PARAMETERS[decoder] * share) * dtype.itemsize,
        working=pass_bytes(config, height, width, dtype) + decoder_bytes(height, width, dtype, latents, decoder, base),
    )


def check_memory(need: MemoryNeed, free: int) -> None:
    """Raise AvatarError, before the first block, where a device has too little memory left; it says what to turn."""
    if need.total <= free:
        return
    gib = 2.0**30
    raise AvatarError(
        f"This stream takes about {need.total / gib:.1f} GiB on the device ({need.weights / gib:.1f} weights, "
        f"{need.cache / gib:.1f} keys and values, {(need.decoder + need.working) / gib:.1f} decoder and passes) and "
        f"{free / gib:.1f} GiB are free; use fp8 keys and values, a tiny decoder, a smaller picture, or the CPU.",
        "kv_dtype",
        "decoder",
        "size",
        "device",
    )
