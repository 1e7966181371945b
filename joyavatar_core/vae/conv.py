"""Causal convolutions of the Wan2.1 video autoencoder in two forms, of which a device has the faster one.

Activations are [B, T, H, W, C] and contiguous, so every picture convolution sees channels-last memory, a stack of
frames is a concatenation of the last axis, and a 1x1x1 convolution is a matrix product. CUDA runs conv3d over all
frames of a call at once; every other device runs conv2d over stacked frames, which on a CPU is several times faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import VAECache

# Frames convolved together when a layer has few output channels: a vector register holds 16 floats, and 8 channels
# of one frame would leave half of it empty.
LANES = 16
STACKED, VOLUME = "stacked", "volume"
FORMS = {"cuda": VOLUME}  # by type of device; all others are stacked
# Largest stack of frames built at once, in elements. Bigger ones are cut into bands of rows: the memory stays bounded,
# and the allocator reuses one block instead of asking the system for fresh pages (measured 8x slower to fill).
STACK_LIMIT = 6 << 20


def picture_conv(x: Tensor, weight: Tensor, bias: Tensor | None, **options: object) -> Tensor:
    """conv2d on frames: [B, T, H, W, I] -> [B, T, H', W', O]; `weight` is [O, I, kh, kw]."""
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)  # channels-last memory, no copy
    result = F.conv2d(pictures, weight.to(x), None if bias is None else bias.to(x), **options)
    return result.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one pixel as a matrix product: [..., I] -> [..., O]; `weight` is [O, I, 1, ...]."""
    return F.linear(x, weight.flatten(1).to(x), None if bias is None else bias.to(x))


def stack_windows(frames: Tensor, width: int, step: int, count: int) -> Tensor:
    """Windows of frames laid along the channels, `step` apart: [B, T, H, W, C] -> [B, count, H, W, width*C]."""
    return torch.cat([frames[:, i::step][:, :count] for i in range(width)], dim=-1)


def stacked_weight(weight: Tensor, group: int) -> Tensor:
    """The conv2d weight of a causal conv3d: [O, I, taps, kh, kw] -> [group*O, (taps+group-1)*I, kh, kw].

    A window yields `group` output frames; frame g has the taps from g on and zeros elsewhere.
    With the memory order of `arrange_memory` and one frame a window this is a view.
    """
    out, channels, taps, *kernel = weight.shape
    folded = weight.transpose(1, 2).reshape(out, taps * channels, *kernel)
    if group == 1:
        return folded
    rows = [F.pad(folded, (0, 0, 0, 0, g * channels, (group - 1 - g) * channels)) for g in range(group)]
    return torch.cat(rows).contiguous(memory_format=torch.channels_last)


def frames_per_window(out_channels: int, new_frames: int) -> int:
    """How many output frames to compute per window: the most that fill one vector register and divide the frames."""
    return max(g for g in (1, 2, 4) if g == 1 or (g * out_channels <= LANES and new_frames % g == 0))


def causal_conv(conv: nn.Conv3d, line: Tensor) -> Tensor:
    """A convolution over a line of frames, history first.

    [B, taps - stride + T, H, W, I] -> [B, T / stride, H, W, O].
    """
    out, _, taps, rows, _ = conv.weight.shape
    stride = conv.stride[0]
    count = (line.shape[1] - taps) // stride + 1
    if rows == 1:
        stack = stack_windows(line, taps, stride, count)
        return pointwise_conv(stack, stacked_weight(conv.weight, 1), conv.bias)

    if conv_form(line) == VOLUME:
        return volume_conv(conv, line)
    group = frames_per_window(out, count)
    weight, bias = stacked_weight(conv.weight, group), conv.bias.repeat(group)
    result = stacked_conv(line, weight, bias, taps + group - 1, group, count // group)
    if group > 1:  # [B, T/group, H, W, group*O] -> [B, T, H, W, O]
        result = result.unflatten(-1, (group, out)).permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
    return result


def conv_form(x: Tensor) -> str:
    """How convolutions over frames run where x is."""
    return FORMS.get(x.device.type, STACKED)


def volume_conv(conv: nn.Conv3d, line: Tensor) -> Tensor:
    """conv3d in channels-last memory: [B, taps - stride + T, H, W, I] -> [B, T / stride, H, W, O]."""
    margin = conv.weight.shape[-1] // 2
    bias = None if conv.bias is None else conv.bias.to(line)
    weight = conv.weight.to(line).contiguous(memory_format=torch.channels_last_3d)
    video = line.permute(0, 4, 1, 2, 3)  # channels-last memory, no copy
    result = F.conv3d(video, weight, bias, conv.stride, (0, margin, margin))
    return result.permute(0, 2, 3, 4, 1)


def stacked_conv(line: Tensor, weight: Tensor, bias: Tensor, width: int, step: int, count: int) -> Tensor:
    """conv2d over `count` windows of `width` frames: [B, T, H, W, I] -> [B, count, H, W, O].

    Large stacks are built one window and one band of rows at a time; not for training, where autograd would keep
    every band alive anyway.
    """
    batch, _, height, columns, channels = line.shape
    margin = weight.shape[-1] // 2
    row = batch * columns * width * channels
    if line.requires_grad or weight.requires_grad or count * height * row <= STACK_LIMIT:
        return picture_conv(stack_windows(line, width, step, count), weight, bias, padding=margin)

    band = max(8, STACK_LIMIT // row)
    windows = []
    for start in range(0, count * step, step):
        bands = []
        for top in range(0, height, band):
            bottom = min(top + band, height)
            above, below = min(margin, top), min(margin, height - bottom)
            rows = line[:, start : start + width, top - above : bottom + below]
            stack = stack_windows(rows, width, 1, 1)
            if above + below < 2 * margin:  # the picture's own edge is padded with zeros
                stack = F.pad(stack, (0, 0, 0, 0, margin - above, margin - below))
            bands.append(picture_conv(stack, weight, bias, padding=(0, margin)))
        windows.append(torch.cat(bands, dim=2))
    return torch.cat(windows, dim=1)


def streamed_conv(conv: nn.Conv3d, frames: Tensor, cache: VAECache | None, first: Tensor | None = None) -> Tensor:
    """`causal_conv` with the history taken from the cache and kept in it.

    On a layer's first call the history is `first`, by default zeros. [B, T, H, W, I] -> [B, T / stride, H, W, O].
    """
    past = conv.kernel_size[0] - conv.stride[0]
    history = cache.recall(conv.slot, frames) if cache is not None else None
    if history is None:
        history = frames.new_zeros(frames.shape[0], past, *frames.shape[2:]) if first is None else first
    line = torch.cat([history, frames], dim=1)
    if cache is not None:
        cache.keep(conv.slot, line, past)
    return causal_conv(conv, line)


def name_slots(module: nn.Module) -> None:
    """Give each causal convolution its own name, under which a cache keeps its history."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv3d):
            layer.slot = name


@torch.no_grad()
def arrange_memory(module: nn.Module) -> None:
    """Store convolution weights in the order the kernels read them (shapes, names and values stay).

    [O, I, taps, kh, kw] is kept as (O, kh, kw, taps, I) in memory, so that `stacked_weight` is a channels-last view:
    nothing to cache, gradients flow, and updates, LoRA merges and casts take effect at once.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
