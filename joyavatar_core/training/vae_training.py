"""Training the small VAE: crops of talking faces in, the same crops out, and the mouth's movement kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..device import to_device
from ..geometry import LATENT_CHANNELS, PIXELS_PER_CELL, to_latent_frames
from ..paths import replacing
from ..synthetic.clips import Clip
from ..synthetic.dataset import clip_frames, load_clip
from ..vae import StreamingVAE
from ..vae.wan import WAN_MEAN, WAN_STD
from .loop import Draw, LoopSettings, Trainer
from .losses import KL_WEIGHT, box_weight, kl_divergence, reconstruction_losses
from .parallel import Share
from .steps_ahead import StepsAhead
from .vae_start import start_linear

MOUTH_WEIGHT = 4.0
BATCH_WORKERS = 6  # threads that read batches ahead of a GPU
FIRST_LOGVAR = -4.6  # a tenth of a deviation: makes the decoder robust to a transformer's errors
PERTURBATION = 0.3  # in deviations of a channel, to see what it does to the pixels
START_CLIPS, START_FRAMES, START_MOUTH_WEIGHT = 36, 9, 6.0


@dataclass(frozen=True)
class VaeRecipe:
    """Crops of `frames` frames and `crop` pixels, `batch` at a time; every `whole_every`-th step shows half as many
    whole pictures instead, of fewer frames."""

    dim: int = 16
    crop: int = 64
    frames: int = 17
    batch: int = 2
    whole_every: int = 8
    whole_frames: int = 9


def new_vae(dim: int, paths: Sequence[Path]) -> StreamingVAE:
    """A VAE with plain latents that starts as a linear codec of some clips; `fold_statistics` ends its training."""
    vae = StreamingVAE(dim, mean=(0.0,) * LATENT_CHANNELS, std=(1.0,) * LATENT_CHANNELS)
    some = [load_clip(path, 20, START_FRAMES) for path in paths[:: max(1, len(paths) // START_CLIPS)][:START_CLIPS]]
    video = torch.stack([as_video(clip) for clip in some])
    boxes = torch.stack([torch.from_numpy(clip.box[0]) / PIXELS_PER_CELL for clip in some])
    weight = box_weight(boxes, *(side // PIXELS_PER_CELL for side in video.shape[-2:]), START_MOUTH_WEIGHT)
    start_linear(vae, video, FIRST_LOGVAR, weight)
    return vae


def train_vae(
    paths: Sequence[Path],
    settings: LoopSettings,
    recipe: VaeRecipe,
    compiled: bool = False,
    bfloat16: bool = True,
    start: Mapping[str, Tensor] | None = None,
    decoder_only: bool = False,
) -> StreamingVAE:
    """Train on the clips of `paths` until the settings' limit; returns the averaged weights.

    From scratch the latents are plain, not yet folded; from `start` they are normalised with Wan2.1's statistics.
    With `decoder_only` the latents stay what they are, so a transformer trained on them is still right.
    """
    torch.manual_seed(settings.seed)
    if start is not None:
        vae = StreamingVAE(start["decoder.head.0.gamma"].shape[0])
        vae.load_state_dict(start)
    else:
        vae = new_vae(recipe.dim, paths)
    for frozen in (vae.encoder, vae.conv1) if decoder_only else ():
        frozen.requires_grad_(False)
    device = torch.device(settings.device)
    trainer = Trainer(vae.to(device).train(), settings)
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1, 1) for values in (vae.mean, vae.std))

    def losses(video: Tensor, weight: Tensor, noise: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            mu, logvar = vae.encode_moments(video)
            mu, logvar = (mu - mean) / std, (logvar - 2 * std.log()).clamp(-12, 4)
            decoded = vae.decode(mu + (0.5 * logvar).exp() * noise, clamp=False)
        parts = reconstruction_losses(decoded.float(), video, weight)
        kl = kl_divergence(mu, logvar)
        return parts | {"kl": kl, "loss": parts["reconstruction"] + KL_WEIGHT * kl}

    run = torch.compile(losses, dynamic=False) if compiled else losses
    workers = 0 if device.type == "cpu" else BATCH_WORKERS
    with StepsAhead(lambda step: vae_batch(paths, recipe, step, trainer.draws(step)), workers) as batches:
        trainer.run(lambda step, _: run(*(to_device(x, device) for x in batches(step))))
    vae.load_state_dict(trainer.averaged())
    return vae.cpu().eval()


def vae_batch(paths: Sequence[Path], recipe: VaeRecipe, step: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Video [B, 3, T, H, W] in [-1, 1], its weight [B, 1, T, H, W], and the noise of its latents."""
    whole = recipe.whole_every and step % recipe.whole_every == recipe.whole_every - 1
    if whole:
        samples = [
            _excerpt(paths, recipe.whole_frames, None, g) for g in draw(max(Share.mine().world, recipe.batch // 2))
        ]
    else:
        samples = [_excerpt(paths, recipe.frames, recipe.crop, g) for g in draw(recipe.batch)]
    video, weight, noise = (torch.stack(parts) for parts in zip(*samples, strict=True))
    return video, weight, noise


def _excerpt(
    paths: Sequence[Path], frames: int, crop: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """[3, T, H, W], [1, T, H, W], [16, T', H / 8, W / 8]; half of the crops show the mouth, half are mirrored."""

    def draw(stop: int) -> int:
        return int(torch.randint(stop, (), generator=generator))

    path = paths[draw(len(paths))]
    clip = load_clip(path, draw(clip_frames(path) - frames + 1), frames)
    video = as_video(clip)
    box = torch.from_numpy(clip.box)
    weight = box_weight(box, *video.shape[-2:], MOUTH_WEIGHT)[None]
    if crop is not None:
        limit = video.shape[-1] - crop
        left, top = draw(limit + 1), draw(limit + 1)
        if draw(2):
            centre = (box[0, :2] + box[0, 2:]) / 2 - crop / 2
            left, top = (max(0, min(limit, int(c) + draw(25) - 12)) for c in centre)
        window = (..., slice(top, top + crop), slice(left, left + crop))
        video, weight = video[window], weight[window]
    if draw(2):
        video, weight = video.flip(-1), weight.flip(-1)
    cells = video.shape[-1] // PIXELS_PER_CELL
    noise = torch.randn(LATENT_CHANNELS, to_latent_frames(frames), cells, cells, generator=generator)
    return video.contiguous(), weight.contiguous(), noise


def as_video(clip: Clip) -> Tensor:
    """A clip's frames as [3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(clip.frames).permute(3, 0, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def latent_statistics(vae: StreamingVAE, paths: Sequence[Path], frames: int = 33) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over clips, [16] each."""
    moments = []
    for path in paths:
        moments.append(vae.encode_moments(as_video(load_clip(path, 0, frames))[None])[0])
    latents = torch.cat(moments)
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


@torch.no_grad()
def channel_scales(vae: StreamingVAE, paths: Sequence[Path], frames: int = 13) -> Tensor:
    """How large each latent channel should be for a transformer, [16], with a mean square of 1.

    The square root of how much a channel moves the pixels. Channels of equal size, as they come from a linear codec,
    differ thirty-fold in that, and most of a transformer's loss would be detail that changes at random from one latent
    frame to the next.
    """
    videos = [as_video(load_clip(path, 0, frames))[None] for path in paths]
    latents = torch.cat([vae.encode(video) for video in videos])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    noise *= PERTURBATION * latents.std((0, 2, 3, 4), keepdim=True)
    plain, moved = vae.decode(latents, clamp=False), []
    for channel in range(16):
        other = latents.clone()
        other[:, channel] += noise[:, channel]
        moved.append((vae.decode(other, clamp=False) - plain).square().mean().sqrt())
    scales = torch.stack(moved).sqrt()
    return scales / scales.square().mean().sqrt()


@torch.no_grad()
def fold_statistics(vae: StreamingVAE, mean: Tensor, std: Tensor, scales: Tensor | float = 1.0) -> StreamingVAE:
    """The same VAE, but its raw latents have Wan2.1's mean and `scales` [16] times its deviation per channel.

    `mean` and `std` [16] are the current ones of its raw latents. A host that uses Wan2.1's statistics therefore
    normalises them to mean 0 and deviation `scales`, and the file needs no statistics of its own.
    """
    wan_mean, wan_std = torch.tensor(WAN_MEAN), torch.tensor(WAN_STD)
    gain = scales * wan_std / std
    folded = StreamingVAE(vae.dim)
    state = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    mu = slice(0, 16)
    state["conv1.weight"][mu] *= gain.view(-1, 1, 1, 1, 1)
    state["conv1.bias"][mu] = (state["conv1.bias"][mu] - mean) * gain + wan_mean
    state["conv1.bias"][16:] += 2 * gain.log()
    state["conv2.bias"] += (state["conv2.weight"].flatten(1) * (mean - wan_mean / gain)).sum(1)
    state["conv2.weight"] *= (1 / gain).view(1, -1, 1, 1, 1)
    folded.load_state_dict(state)
    return folded.eval().requires_grad_(False)


def save_vae(vae: StreamingVAE, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a folded VAE under Wan2.1's names; the write is atomic."""
    from safetensors.torch import save_file

    with replacing(path, shared=True) as unfinished:
        save_file({name: tensor.to(dtype).contiguous() for name, tensor in vae.state_dict().items()}, unfinished)
