"""StreamingVAE: the Wan2.1 video autoencoder (4 x 8 x 8, 16 channels) at any width, block by block without seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn

from ..device import to_device
from ..errors import AvatarError
from ..geometry import LATENT_CHANNELS, PIXELS_PER_CELL, VIDEO_FRAMES_PER_LATENT
from .cache import VAECache
from .conv import arrange_memory, causal_conv, name_slots, streamed_conv
from .decoder import DecoderModule
from .layers import AttentionBlock, Downsample, Head, ResidualBlock, Upsample, run_blocks
from .state_dicts import load_strict, make_contiguous, wan_state_dict

MULTIPLIERS = (1, 2, 4, 4)  # channels of each resolution, in units of the base width
TEMPORAL = (False, True, True)  # which of the three halvings of the picture also halve the frames

# Mean and standard deviation of the posterior mean per channel, published with Wan2.1.
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


class WanEncoder(nn.Module):
    """Frames to posterior moments: [B, 1 + 4n or 4n, H, W, 3] -> [B, T', H/8, W/8, 32]."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        widths = [dim * m for m in (1, *MULTIPLIERS)]
        self.conv1 = ops.Conv3d(3, widths[0], 3)
        self.downsamples = nn.ModuleList()
        for level, (width, out) in enumerate(pairwise(widths)):
            self.downsamples += [ResidualBlock(width, out, ops), ResidualBlock(out, out, ops)]
            if level < len(TEMPORAL):
                self.downsamples.append(Downsample(out, TEMPORAL[level], ops))
        self.middle = middle_blocks(out, ops)
        self.head = Head(out, 2 * LATENT_CHANNELS, ops)

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        x = streamed_conv(self.conv1, x, cache)
        for block in (*self.downsamples, *self.middle, self.head):
            x = block(x, cache)
        return x


class WanDecoder(nn.Module):
    """Latents to frames: [B, t, h, w, 16] -> [B, 4t (3 fewer at the start), 8h, 8w, 3]."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        widths = [dim * m for m in (MULTIPLIERS[-1], *reversed(MULTIPLIERS))]
        self.conv1 = ops.Conv3d(LATENT_CHANNELS, widths[0], 3)
        self.middle = middle_blocks(widths[0], ops)
        self.upsamples = nn.ModuleList()
        for level, (width, out) in enumerate(pairwise(widths)):
            width = width // 2 if level else width  # an upsampler has halved the channels
            self.upsamples += [ResidualBlock(w, out, ops) for w in (width, out, out)]
            if level < len(TEMPORAL):
                self.upsamples.append(Upsample(out, TEMPORAL[::-1][level], ops))
        self.head = Head(out, 3, ops)

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        x = streamed_conv(self.conv1, x, cache)
        return run_blocks([*self.middle, *self.upsamples, self.head], x, cache)


def middle_blocks(dim: int, ops: ModuleType) -> nn.ModuleList:
    return nn.ModuleList([ResidualBlock(dim, dim, ops), AttentionBlock(dim, ops), ResidualBlock(dim, dim, ops)])


class StreamingVAE(DecoderModule):
    """The Wan2.1 autoencoder with explicit, storable caches; parameter names are those of Wan2.1_VAE.pth.

    In evaluation mode, or with a cache, every call runs one latent frame at a time: any split of a video into calls
    gives the same bits. On CUDA a call decodes all its latent frames at once, which is faster and equal within
    rounding; `at_once` sets another number, for little memory. In training mode without a cache a clip runs in one
    pass over all its frames, and compiles to one graph. `dim` is 96 in the official file; `mean` and `std` normalise
    the latents and default to Wan's. `operations` supplies Conv2d and Conv3d (default torch.nn).
    """

    kind = "wan"

    def __init__(
        self, dim: int = 96, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
        operations: ModuleType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        ops = operations or nn
        self.dim = dim
        self.mean = tuple(mean or WAN_MEAN)
        self.std = tuple(std or WAN_STD)
        if not len(self.mean) == len(self.std) == LATENT_CHANNELS:
            raise AvatarError(
                f"The latent mean and std hold {len(self.mean)} and {len(self.std)} numbers, expected "
                f"{LATENT_CHANNELS} each; leave them out for Wan2.1's."
            )
        self._statistics: dict[tuple[str, torch.device], Tensor] = {}
        self.encoder = WanEncoder(dim, ops)
        self.decoder = WanDecoder(dim, ops)
        self.conv1 = ops.Conv3d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.conv2 = ops.Conv3d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        name_slots(self)
        arrange_memory(self)
        self.register_state_dict_post_hook(make_contiguous)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
        operations: ModuleType | None = None,
    ) -> StreamingVAE:  # fmt: skip
        """A frozen VAE in evaluation mode from tensors named as in Wan2.1_VAE.pth or diffusers' AutoencoderKLWan.

        The width is read from the shapes. Raises AvatarError for anything else.
        """
        state = wan_state_dict(state)
        with torch.device("meta"):
            vae = cls(state["decoder.head.0.gamma"].shape[0], mean, std, operations)
        load_strict(vae, state, "Wan2.1 VAE")
        arrange_memory(vae)
        return vae.eval().requires_grad_(False)

    def decode(self, latents: Tensor, cache: VAECache | None = None, clamp: bool = True) -> Tensor:
        """Normalised latents [B, 16, t, h, w] -> frames [B, 3, T, 8h, 8w] in [-1, 1], float32.

        T = 1 + 4 (t - 1) at the start of a stream, 4t when `cache` carries one on. `clamp=False` keeps values outside
        the range, for a loss. Raises AvatarError for other shapes.
        """
        check_latents(latents)
        frames = latents.permute(0, 2, 3, 4, 1).float() * self.statistic("std", latents)
        frames = (frames + self.statistic("mean", latents)).to(self.conv2.weight.dtype).contiguous()
        whole = self.training and cache is None
        cache = None if whole else cache if cache is not None else self.new_cache()
        size = frames.shape[1] if whole else self.latents_at_once(frames)
        video = [self.decoder(causal_conv(self.conv2, part), cache).float() for part in frames.split(size, 1)]
        result = torch.cat(video, dim=1).permute(0, 4, 1, 2, 3)
        return result.clamp(-1, 1) if clamp else result

    def encode(self, video: Tensor, cache: VAECache | None = None) -> Tensor:
        """Frames [B, 3, T, H, W] in [-1, 1] -> normalised latents [B, 16, t, H/8, W/8] (the posterior's mean), float32.

        T = 1 + 4n at the start of a stream (t = 1 + n), 4n when `cache` carries one on. Raises AvatarError otherwise.
        """
        mu, _ = self.encode_moments(video, cache)
        mean, std = (self.statistic(name, mu).view(-1, 1, 1, 1) for name in ("mean", "std"))
        return (mu - mean) / std

    def encode_moments(self, video: Tensor, cache: VAECache | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, raw (not normalised): two [B, 16, t, H/8, W/8]; see `encode`."""
        started = cache is not None and self.encoder.conv1.slot in cache
        check_video(video, started)
        frames = video.permute(0, 2, 3, 4, 1).to(self.conv1.weight.dtype).contiguous()
        whole = self.training and cache is None
        total = frames.shape[1]
        later = [VIDEO_FRAMES_PER_LATENT] * (total // VIDEO_FRAMES_PER_LATENT)
        sizes = [total] if whole else [1] * (not started) + later
        cache = None if whole else cache if cache is not None else self.new_cache()
        moments = [causal_conv(self.conv1, self.encoder(part, cache)) for part in frames.split(sizes, 1)]
        mu, logvar = torch.cat(moments, dim=1).float().permute(0, 4, 1, 2, 3).chunk(2, dim=1)
        return mu, logvar

    def statistic(self, name: str, like: Tensor) -> Tensor:
        """`mean` or `std` where a tensor is, float32 [16], made once; they are no buffers, so that a module cast to
        bfloat16 does not round them."""
        key = (name, like.device)
        if key not in self._statistics:
            self._statistics[key] = to_device(torch.tensor(getattr(self, name)), like.device)
        return self._statistics[key]


def check_latents(latents: Tensor) -> None:
    if latents.ndim != 5 or latents.shape[1] != LATENT_CHANNELS or 0 in latents.shape:
        raise AvatarError(
            f"The latents have the shape {tuple(latents.shape)}, expected [batch, {LATENT_CHANNELS}, frames, height, "
            "width]; give latents of a Wan2.1 model."
        )


def check_video(video: Tensor, started: bool) -> None:
    if video.ndim != 5 or video.shape[1] != 3 or 0 in video.shape:
        raise AvatarError(
            f"The video has the shape {tuple(video.shape)}, expected [batch, 3, frames, height, width] with values "
            "in [-1, 1]."
        )
    frames, height, width = video.shape[2:]
    if height % PIXELS_PER_CELL or width % PIXELS_PER_CELL:
        raise AvatarError(
            f"The picture is {width}x{height} pixels, expected multiples of {PIXELS_PER_CELL}; crop or resize it."
        )
    if frames % VIDEO_FRAMES_PER_LATENT != (0 if started else 1):
        wanted = "a multiple of 4 when a stream goes on" if started else "1 + a multiple of 4 at the start of a stream"
        raise AvatarError(f"The video has {frames} frames, expected {wanted}; trim or pad it.")
