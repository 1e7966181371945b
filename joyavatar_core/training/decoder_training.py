"""Training a decoder of a VAE's latents: a tiny one, or the VAE's own, on request with its encoder.

The latents of clips go in, the clips' own frames come out, at the whole and at half size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AvatarError
from ..geometry import LATENT_CHANNELS, PIXELS_PER_CELL, VIDEO_FRAMES_PER_LATENT
from ..synthetic.dataset import clip_frames, load_pictures
from ..vae import StreamingVAE, TinyDecoder
from .discriminator import WithDiscriminator, discriminator_loss, generator_losses
from .loop import Draw, LoopSettings, Trainer
from .losses import box_weight, reconstruction_losses, strength_error
from .refiner_augment import Random, recolour

WIDTHS = (96, 64, 32, 16)
HALF = 0.35  # share of samples at half size, 128 x 128 for clips of 256 x 256
NOISE = 0.15  # the latents' errors, in deviations: up to this
MOUTH_WEIGHT, EYES_WEIGHT = 12.0, 6.0
AIMED, AT_MOUTH = 0.8, 0.6  # share of the crops that show the mouth or an eye in the middle, and of these, the mouth
SWAPPED = 0.3  # share of crops with colour channels in another order: colours that clips lack
FRAME_STEP = 3  # one frame of so many is shown to the discriminator
KEPT_HALF, KEPT_WHOLE = 20.0, 0.02  # how firmly an encoder that is trained keeps its latents, at half and whole size
# On top of the reconstruction, and of the discriminator's own loss. Sharpness needs them: the least error is soft.
SCALES = {"adversarial": 0.08, "features": 0.3, "sharp": 1.5}
ADVERSARIAL_FROM, ADVERSARIAL_WHOLLY = 0.06, 0.2  # shares of the run after which the discriminator counts, and wholly
BLUR = 4  # pixels that are averaged: the discriminator sees what is finer


@dataclass(frozen=True)
class DecoderRecipe:
    """Crops of `cells` latent cells and `latents` latent frames, `batch` at a time."""

    cells: int = 10
    latents: int = 4
    batch: int = 4

    @property
    def frames(self) -> int:
        """Video frames of a crop."""
        return VIDEO_FRAMES_PER_LATENT * (self.latents - 1) + 1

    def check(self, clip: Path) -> None:
        """Raise AvatarError for clips that are too small or too short for a crop."""
        side, frames = len(load_pictures(clip, "frames", 0, 1)[0]), clip_frames(clip)
        least = 2 * PIXELS_PER_CELL * self.cells
        if side < least or frames < self.frames:
            raise AvatarError(
                f"'{clip.name}' has {frames} frames of {side} x {side}, expected at least {self.frames} of {least} x "
                f"{least}; make larger clips with the command 'data'."
            )


def decoder_sample(
    clip: Path, recipe: DecoderRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A crop of a clip, recoloured: frames [3, T, 8 c, 8 c], their weights for errors and for added sharpness
    [2, T, 8 c, 8 c], noise for the latents [16, n, c, c], its size [1], and whether it is at half size [1].

    The mouth weighs more in the first only: an uncertain mouth that is made sharp has the wrong shape.
    """
    from safetensors import safe_open

    random = Random(generator)
    scale = 2 if random.chance(HALF) else 1
    first = random.below(clip_frames(clip) - recipe.frames + 1)
    frames = slice(first, first + recipe.frames)
    with safe_open(clip, "pt") as file:
        mouth, *eyes = torch.cat([file.get_slice("box")[frames][:, None], file.get_slice("eyes")[frames]], 1).unbind(1)
    video = torch.from_numpy(load_pictures(clip, "frames", frames.start, frames.stop)).permute(3, 0, 1, 2)
    video = F.avg_pool2d(video.float() / 127.5 - 1, scale)
    shape = video.shape[-2:]
    at_eyes = torch.maximum(*(box_weight(eye / scale, *shape, EYES_WEIGHT) for eye in eyes))
    weight = torch.stack([torch.maximum(box_weight(mouth / scale, *shape, MOUTH_WEIGHT), at_eyes), at_eyes])
    crop = PIXELS_PER_CELL * recipe.cells
    most = video.shape[-1] - crop
    corner = [random.below(most + 1) for _ in range(2)]  # left and top
    if random.chance(AIMED):
        box = (mouth if random.chance(AT_MOUTH) else random.choose(eyes))[0] / scale
        jittered = (box[:2] + box[2:] - crop) / 2 + PIXELS_PER_CELL * (torch.rand(2, generator=generator) - 0.5)
        corner = [max(0, min(most, round(float(x)))) for x in jittered]
    columns, rows = (slice(k, k + crop) for k in corner)
    video, weight = video[..., rows, columns], weight[..., rows, columns].contiguous()
    if random.chance(SWAPPED):
        video = video[torch.randperm(3, generator=generator)]
    video = recolour([video.flatten(1, 2)], random)[0].unflatten(1, video.shape[1:3]).contiguous()
    size = NOISE * random.uniform()
    return (
        video,
        weight,
        size * random.normal(LATENT_CHANNELS, recipe.latents, *2 * [recipe.cells]),
        torch.tensor([size]),
        torch.tensor([float(scale == 2)]),
    )


def decoder_losses(
    both: WithDiscriminator, vae: StreamingVAE, encodes: bool, share: Tensor,
    video: Tensor, weight: Tensor, noise: Tensor, size: Tensor, half: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """All parts, and their weighted sum as `loss`.

    vae: as it was before. encodes: the network's own encoder is trained. share: how much the discriminator counts,
    0 ... 1, []. The others are a batch of `decoder_sample`.
    """
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            known = vae.encode(video)
        latents = both.network.encode(video) if encodes else known
        made = both.network.decode(latents + noise, clamp=False)
    weight, sharp_weight = weight.split(1, 1)
    losses = reconstruction_losses(made, video, weight)
    losses["sharp"] = sum(strength_error(made, video, sharp_weight, d) for d in (-1, -2))
    away = (latents - known).float().square().mean((1, 2, 3, 4))
    losses["kept"] = (away * torch.where(half[:, 0] > 0, KEPT_HALF, KEPT_WHOLE)).mean()
    some = [x[:, :, ::FRAME_STEP].transpose(1, 2).flatten(0, 1) for x in (video, made, sharp_weight)]
    coarse = F.interpolate(F.avg_pool2d(some[0], BLUR), scale_factor=BLUR, mode="bilinear")
    seen = (both.discriminator, *some, coarse, size.repeat_interleave(len(coarse) // len(size), 0))
    with torch.autocast("cpu", torch.bfloat16):
        losses["discriminator"] = discriminator_loss(*seen)
        losses["adversarial"], losses["features"] = generator_losses(*seen)
    sharp = sum(scale * losses[name] for name, scale in SCALES.items())
    return losses | {"loss": losses["reconstruction"] + losses["kept"] + losses["discriminator"] + share * sharp}


def train_decoder(
    clips: Sequence[Path],
    vae: StreamingVAE,
    decoder: TinyDecoder | StreamingVAE,
    settings: LoopSettings,
    recipe: DecoderRecipe,
    encodes: bool = False,
    compiled: bool = False,
) -> TinyDecoder | StreamingVAE:
    """Train a decoder of the VAE's latents until the settings' limit; returns it with the averaged weights.

    decoder: a tiny one, or another copy of the VAE. encodes: train that copy's encoder, too; its latents of half-size
    crops are held near what they were. compiled: with torch.compile.
    """
    torch.manual_seed(settings.seed)
    own = isinstance(decoder, StreamingVAE)
    parts = (decoder.decoder, decoder.conv2) if own and not encodes else (decoder,)
    for part in parts:
        part.requires_grad_(True)
    both = WithDiscriminator(decoder, 1).train()
    trainer = Trainer(both, settings)
    losses = torch.compile(decoder_losses, dynamic=False) if compiled else decoder_losses

    def step_losses(step: int, draw: Draw) -> dict[str, Tensor]:
        samples = [decoder_sample(clips[Random(g).below(len(clips))], recipe, g) for g in draw(recipe.batch)]
        share = (trainer.progress - ADVERSARIAL_FROM) / (ADVERSARIAL_WHOLLY - ADVERSARIAL_FROM)
        batch = (torch.stack(part) for part in zip(*samples, strict=True))
        return losses(both, vae, encodes, torch.tensor(min(1.0, max(0.0, share))), *batch)

    trainer.run(step_losses)
    both.load_state_dict(trainer.averaged())
    return decoder.eval().requires_grad_(False)
