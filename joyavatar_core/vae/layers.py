"""Blocks of the Wan2.1 video autoencoder on [B, T, H, W, C] activations; every temporal layer streams."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import VAECache
from .conv import causal_conv, picture_conv, pointwise_conv, streamed_conv

# Largest activation of several frames, in elements; beyond it a streaming call goes on frame by frame, so that the
# allocator need not ask the system for fresh pages at every layer.
FRAMES_LIMIT = 4 << 20
LEAST_SQUARE = 1e-24  # mean square below which a norm counts as zero


def run_blocks(blocks: Sequence[nn.Module], x: Tensor, cache: VAECache | None) -> Tensor:
    """The blocks one after the other; on a CPU, from where the frames get large, each frame by itself."""
    for i, block in enumerate(blocks):
        if cache is not None and x.shape[1] > 1 and x.numel() > FRAMES_LIMIT and x.device.type == "cpu":
            return torch.cat([run_blocks(blocks[i:], frame, cache) for frame in x.split(1, dim=1)], dim=1)
        x = block(x, cache)
    return x


class RMSNorm(nn.Module):
    """x / |x| * sqrt(C) * gamma over the channels; `gamma` is stored with `axes` trailing axes of one."""

    def __init__(self, dim: int, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:  # one kernel
            return F.rms_norm(x, x.shape[-1:], self.gamma.flatten().to(x), eps=LEAST_SQUARE)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = x.shape[-1] ** 0.5 / length.clamp_min(1e-12)
        return x * scale.to(x.dtype) * self.gamma.flatten().to(x)


def norm_silu(norm: RMSNorm, x: Tensor) -> Tensor:
    """SiLU(norm(x)), in place where no gradient needs the intermediate."""
    normed = norm(x)
    return F.silu(normed, inplace=not normed.requires_grad)


class ResidualBlock(nn.Module):
    """Two normed causal convolutions beside a shortcut: [B, T, H, W, I] -> [B, T, H, W, O]."""

    def __init__(self, in_dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__()
        # The names count the activations and dropout of the reference's Sequential.
        self.residual = nn.ModuleDict({
            "0": RMSNorm(in_dim), "2": ops.Conv3d(in_dim, out_dim, 3),
            "3": RMSNorm(out_dim), "6": ops.Conv3d(out_dim, out_dim, 3),
        })  # fmt: skip
        if in_dim != out_dim:
            self.shortcut = ops.Conv3d(in_dim, out_dim, 1)

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        first, second = self.residual["2"], self.residual["6"]
        h = streamed_conv(first, norm_silu(self.residual["0"], x), cache)
        h = streamed_conv(second, norm_silu(self.residual["3"], h), cache)
        shortcut = causal_conv(self.shortcut, x) if hasattr(self, "shortcut") else x
        return h + shortcut


class Head(nn.ModuleDict):
    """The last norm and convolution: [B, T, H, W, I] -> [B, T, H, W, O]."""

    def __init__(self, in_dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__({"0": RMSNorm(in_dim), "2": ops.Conv3d(in_dim, out_dim, 3)})

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        return streamed_conv(self["2"], norm_silu(self["0"], x), cache)


class AttentionBlock(nn.Module):
    """Single-head self-attention within each frame: [B, T, H, W, C] -> the same."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, axes=2)
        self.to_qkv = ops.Conv2d(dim, 3 * dim, 1)
        self.proj = ops.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        batch, frames, height, width, dim = x.shape
        tokens = self.norm(x).reshape(batch * frames, 1, height * width, dim)
        qkv = pointwise_conv(tokens, self.to_qkv.weight, self.to_qkv.bias)
        tokens = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        tokens = pointwise_conv(tokens, self.proj.weight, self.proj.bias)
        return x + tokens.reshape(x.shape)


class Upsample(nn.Module):
    """Twice the height and width, half the channels, and with `temporal` two frames for one (but the very first)."""

    def __init__(self, dim: int, temporal: bool, ops: ModuleType) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": ops.Conv2d(dim, dim // 2, 3)})
        if temporal:
            self.time_conv = ops.Conv3d(dim, 2 * dim, (3, 1, 1))

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        if hasattr(self, "time_conv"):
            x = self.double_frames(x, cache)
        batch, frames, height, width, dim = x.shape
        x = (
            x[:, :, :, None, :, None]
            .expand(-1, -1, -1, 2, -1, 2, -1)
            .reshape(batch, frames, 2 * height, 2 * width, dim)
        )
        conv = self.resample["1"]
        return picture_conv(x, conv.weight, conv.bias, padding=1)

    def double_frames(self, x: Tensor, cache: VAECache | None) -> Tensor:
        """[B, T, H, W, C] -> [B, 2T, H, W, C]; the first frame of a stream passes as it is and leaves no history."""
        started = cache is not None and self.time_conv.slot in cache
        still, x = (x[:, :0], x) if started else (x[:, :1], x[:, 1:])
        pairs = streamed_conv(self.time_conv, x, cache).unflatten(-1, (2, x.shape[-1]))  # [B, T, H, W, 2, C]
        doubled = pairs.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
        return doubled if started else torch.cat([still, doubled], dim=1)


class Downsample(nn.Module):
    """Half the height and width, and with `temporal` one frame for two (but the very first)."""

    def __init__(self, dim: int, temporal: bool, ops: ModuleType) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": ops.Conv2d(dim, dim, 3, stride=2)})
        if temporal:
            self.time_conv = ops.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, cache: VAECache | None) -> Tensor:
        conv = self.resample["1"]
        x = picture_conv(F.pad(x, (0, 0, 0, 1, 0, 1)), conv.weight, conv.bias, stride=2)
        if not hasattr(self, "time_conv"):
            return x
        if cache is not None and self.time_conv.slot in cache:
            return streamed_conv(self.time_conv, x, cache)
        first, rest = x[:, :1], x[:, 1:]  # the first frame passes as it is and is the history of the next
        return torch.cat([first, streamed_conv(self.time_conv, rest, cache, first)], dim=1)
