"""Initial weights of a VAE: the best linear codec of some clips, in Wan2.1's architecture.

Residual branches start at zero, so the network begins as its shortcuts: the encoder's strided convolutions become
principal components, the decoder's convolutions least-squares fits of what the encoder saw. Two layers would bend it,
the heads' norm and SiLU; they are kept straight by a large constant channel, which makes the norm nearly constant, and
by pairs, since silu(a) - silu(-a) = a. Training then only has to improve on it, which on a CPU is the difference
between hours and minutes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import LATENT_CHANNELS, PIXELS_PER_CELL
from ..vae import StreamingVAE
from ..vae.layers import AttentionBlock, Downsample, ResidualBlock, Upsample

CONSTANT = 3.0  # times the typical length of what shares the norm with it
RIDGE = 1e-5
ROWS = 512  # places of a picture that enter a fit
EMPHASIS = 2.0  # weight of changes within a latent frame against constant parts; mouth movement is in the changes


@torch.no_grad()
def start_linear(vae: StreamingVAE, video: Tensor, logvar: float, weight: Tensor | None = None) -> None:
    """Set the weights of a new `vae` with plain latents from clips [B, 3, 1 + 4n, H, W] in [-1, 1].

    weight: how much each place matters, [B, H/8, W/8]; None: the same everywhere.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.residual["6"].weight)
            if hasattr(module, "shortcut"):
                pass_through(module.shortcut)
        elif isinstance(module, AttentionBlock):
            nn.init.zeros_(module.proj.weight)
    frames = video.permute(0, 2, 3, 4, 1).contiguous()
    if weight is None:
        weight = torch.ones(len(frames), *(side // PIXELS_PER_CELL for side in frames.shape[2:4]))
    latents, features, static = _start_encoder(vae, frames, logvar, weight)
    _start_decoder(vae, latents, features, static)


def _start_encoder(
    vae: StreamingVAE, frames: Tensor, logvar: float, weight: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Returns the latents, per level what an upsampler has to give back, and the latents of each pair of frames."""
    encoder = vae.encoder
    pass_through(encoder.conv1)
    first, second, third = (block for block in encoder.downsamples if isinstance(block, Downsample))
    full = frames  # [B, T, H, W, 3]
    half = _fit_space(first, full, min(12, vae.dim), weight)
    quarter_all = _fit_space(second, half, vae.dim * 2, weight)
    quarter = _fit_time(second, quarter_all, vae.dim * 2)
    count = (third.resample["1"].weight.shape[0] - 2) // 2
    codes_all = _fit_space(third, quarter, count, weight)
    codes = _fit_time(third, codes_all, count)
    length = CONSTANT * (2 * codes.square().sum(-1)).mean().sqrt()
    _make_pairs(third, count, float(length))

    mean = codes.mean((0, 1, 2, 3))
    vectors = _components(codes - mean, weight)[:LATENT_CHANNELS]
    project = vectors / ((codes - mean) @ vectors.T).flatten(0, 3).std(0)[:, None]  # [16, count]
    _straighten(encoder.head, project, -project @ mean, float(length))
    encoder.head["2"].bias[LATENT_CHANNELS:] = logvar
    pass_through(vae.conv1)

    latents = (codes - mean) @ project.T
    pairs = (codes_all - mean) @ project.T  # as if each frame stood still
    return latents, [full, half, quarter_all, quarter], pairs


def _start_decoder(vae: StreamingVAE, latents: Tensor, features: list[Tensor], pairs: Tensor) -> None:
    """Level by level: what the encoder saw there is what an upsampler has to give back."""
    full, half, quarter_all, quarter = features
    decoder = vae.decoder
    pass_through(vae.conv2)
    pass_through(decoder.conv1)
    doubled, enlarged = iter([pairs, quarter_all]), iter([quarter, half, torch.cat([full, -full], dim=-1)])
    x = F.pad(latents, (0, decoder.conv1.weight.shape[0] - latents.shape[-1]))
    length = 0.0
    for block in decoder.upsamples:
        if isinstance(block, Upsample):
            if hasattr(block, "time_conv"):
                _fit_double(block, x, next(doubled))
            target = next(enlarged)
            length = CONSTANT * float(target.square().sum(-1).mean().sqrt())
            room = target.shape[-1] < block.resample["1"].weight.shape[0]
            _fit_up(block, x, F.pad(target, (0, int(room)), value=length))
        x = block(x, None)
    _straighten(decoder.head, torch.eye(3), torch.zeros(3), length)


def pass_through(conv: nn.Conv3d | nn.Conv2d) -> None:
    """The identity on the channels that input and output share, at the kernel's middle and in the newest frame."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    middle = conv.weight.shape[-1] // 2
    for channel in range(min(conv.weight.shape[:2])):
        if conv.weight.ndim == 5:
            conv.weight[channel, channel, -1, middle, middle] = 1
        else:
            conv.weight[channel, channel, middle, middle] = 1


def _components(x: Tensor, weight: Tensor) -> Tensor:
    """All principal components of x [B, T, H, W, C], strongest first, [C, C]; weight [B, h, w] is enlarged to fit."""
    weight = F.interpolate(weight[:, None], size=x.shape[2:4])[:, 0, None, :, :, None]
    gram = (x * weight).flatten(0, 3).T @ x.flatten(0, 3)
    _, vectors = torch.linalg.eigh(gram.double())
    return vectors.flip(1).T.float()


def _fit_space(block: Downsample, x: Tensor, count: int, weight: Tensor) -> Tensor:
    """The `count` principal components of 2 x 2 cells: [B, T, H, W, C] -> [B, T, H/2, W/2, count]."""
    channels = x.shape[-1]
    cells = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 1, 2, 4, 3, 5, 6).flatten(4)
    project = _components(cells, weight)[:count] / 2  # [count, 4 C]; a flat picture keeps its size
    conv = block.resample["1"]
    nn.init.zeros_(conv.weight)
    conv.weight[:count, :channels, :2, :2] = project.unflatten(1, (2, 2, channels)).permute(0, 3, 1, 2)
    return cells @ project.T


def _fit_time(block: Downsample, x: Tensor, count: int) -> Tensor:
    """Two frames as one: means where they matter more, else the differences of the strongest components.

    A mean keeps its component's place, so that the stream's first frame, which passes alone, means the same.
    [B, 1 + 2n, H, W, count] -> [B, 1 + n, H, W, count].
    """
    before, after = x[:, 1::2], x[:, 2::2]
    mean, change = (before + after) / 2, (after - before) * (EMPHASIS / 2)
    energy = torch.cat([part.square().mean((0, 1, 2, 3)) for part in (mean, change)])
    chosen = set(energy.argsort(descending=True)[:count].tolist())
    changes = iter(sorted(k - count for k in chosen if k >= count))
    weight = block.time_conv.weight
    nn.init.zeros_(weight)
    combine = torch.zeros(count, 2 * count)
    for place in range(count):
        if place in chosen:
            combine[place, place] = combine[place, count + place] = 0.5
        else:
            source = next(changes)
            combine[place, source], combine[place, count + source] = -EMPHASIS / 2, EMPHASIS / 2
    weight[:count, :count, 1, 0, 0], weight[:count, :count, 2, 0, 0] = combine[:, :count], combine[:, count:]
    return torch.cat([x[:, :1], torch.cat([before, after], dim=-1) @ combine.T], dim=1)


def _make_pairs(block: Downsample, count: int, constant: float) -> None:
    """Let a downsampler give every number also with the other sign, and a constant."""
    conv, time = block.resample["1"], block.time_conv
    conv.weight[count : 2 * count] = -conv.weight[:count]
    conv.bias[2 * count] = constant
    time.weight[count : 2 * count, count : 2 * count] = time.weight[:count, :count]
    time.weight[2 * count, 2 * count, 2] = 1


def _straighten(head: nn.ModuleDict, project: Tensor, bias: Tensor, constant: float) -> None:
    """A head that gives `project` of its input's pairs: channels a, -a, constant."""
    outputs, count = project.shape
    conv = head["2"]
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    head["0"].gamma.fill_(constant / head["0"].gamma.numel() ** 0.5)
    conv.weight[:outputs, :count, -1, 1, 1] = project
    conv.weight[:outputs, count : 2 * count, -1, 1, 1] = -project
    conv.bias[:outputs] = bias


def _fit_double(block: Upsample, x: Tensor, target: Tensor) -> None:
    """Two frames from one by least squares: x [B, 1 + n, H, W, C], target [B, 1 + 2n, H, W, D]."""
    wanted = target.shape[-1]
    both = torch.cat([target[:, 1::2], target[:, 2::2]], dim=-1)
    weight, bias = least_squares(x[:, 1:].flatten(0, 3), both.flatten(0, 3))
    conv, half = block.time_conv, block.time_conv.weight.shape[0] // 2
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    for k in range(2):
        rows = slice(k * wanted, (k + 1) * wanted)
        conv.weight[k * half : k * half + wanted, :, 2, 0, 0] = weight[rows]
        conv.bias[k * half : k * half + wanted] = bias[rows]


def _fit_up(block: Upsample, x: Tensor, target: Tensor) -> None:
    """Twice the picture by least squares: x [B, T, H, W, C], target [B, T' , 2H, 2W, D]."""
    if hasattr(block, "time_conv"):
        x = block.double_frames(x, None)
    conv, wanted = block.resample["1"], target.shape[-1]
    rows = (
        F.unfold(picture.permute(2, 0, 1)[None].repeat_interleave(2, 2).repeat_interleave(2, 3), 3, padding=1)[0].T
        for picture in x.flatten(0, 1)
    )
    solution = _solve_rows(rows, target.flatten(0, 1).flatten(1, 2))
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.weight[:wanted] = solution[:-1].T.unflatten(1, conv.weight.shape[1:])
    conv.bias[:wanted] = solution[-1]


def least_squares(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [D, C] and bias [D] of the best linear map from x [N, C] to target [N, D]."""
    rows = F.pad(x, (0, 1), value=1.0)
    solution = _solve((rows.T @ rows).double(), (rows.T @ target).double())
    return solution[:-1].T, solution[-1]


def _solve_rows(rows: Iterable[Tensor], targets: Iterable[Tensor]) -> Tensor:
    """Least squares over batches of rows [N, C] and targets [N, D] -> [C + 1, D], the bias last."""
    gram = cross = 0.0
    for row, target in zip(rows, targets, strict=True):
        thin = max(1, len(row) // ROWS) + 1  # neighbours are alike; one more, so that no column is favoured
        row, target = row[::thin], target[::thin]
        row = F.pad(row, (0, 1), value=1.0)
        gram = gram + row.T @ row
        cross = cross + row.T @ target
    return _solve(gram.double(), cross.double())


def _solve(gram: Tensor, cross: Tensor) -> Tensor:
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, cross).float()
