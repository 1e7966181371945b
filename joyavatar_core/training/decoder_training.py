"""Training the tiny decoder: latents of the VAE's encoder in, the clips' own frames out, at the whole and half size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AvatarError
from ..geometry import PIXELS_PER_CELL, VIDEO_FRAMES_PER_LATENT
from ..paths import replacing
from ..synthetic.dataset import clip_frames, load_clip, load_pictures
from ..vae import StreamingVAE, TinyDecoder
from .discriminator import Judged, judged, judging
from .loop import Draw, LoopSettings, Trainer
from .losses import box_weight, reconstruction_losses
from .refiner_augment import Random
from .vae_training import as_video

WIDTHS = (96, 64, 32, 16)
HALF = 0.6  # share of samples at half size, 128 x 128 for clips of 256 x 256
NOISE = 0.2  # the latents' errors, in deviations: up to this
MOUTH_WEIGHT, EYES_WEIGHT = 4.0, 4.0
AIMED = 0.6  # share of the crops that show the mouth or an eye in the middle
SPOILED = 4  # pixels
JUDGED_EVERY = 3  # frames
ADVERSARIAL = {"fooled": 0.01, "features": 0.05}
FIRST_JUDGED, WHOLLY_JUDGED = 0.25, 0.5  # of the run: where the discriminator begins to count, and counts wholly
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
                f"{least}; make clips with the command 'data', --size 256 and --seconds 2."
            )


@torch.no_grad()
def encode_sizes(path: Path, vae: StreamingVAE) -> dict[str, Tensor]:
    """A clip's latents [16, L, h, w] in bfloat16, at its own size ("whole") and averaged to half of it ("half")."""
    video = as_video(load_clip(path))[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = {"whole": vae.encode(video)[0], "half": vae.encode(F.avg_pool3d(video, (1, 2, 2)))[0]}
    return {name: latents.bfloat16().contiguous() for name, latents in found.items()}


def write_latents(clips: Sequence[Path], vae: StreamingVAE, folder: Path) -> list[Path]:
    """The latents of clips in files of the same names; those that exist are skipped. Returns their paths."""
    from safetensors.torch import save_file
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm([path for path in clips if not (folder / path.name).exists()], folder.name, unit="clip"):
        with replacing(folder / path.name, shared=True) as unfinished:
            save_file(encode_sizes(path, vae), unfinished)
    return [folder / path.name for path in clips]


def decoder_sample(
    clip: Path, latents: Path, recipe: DecoderRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A crop: noisy latents [16, n, c, c], the noise's size [1], frames [3, T, 8 c, 8 c], their weight [1, T, ...]."""
    from safetensors import safe_open

    random = Random(generator)
    size, scale = ("half", 2) if random.chance(HALF) else ("whole", 1)
    first = random.below((clip_frames(clip) - recipe.frames) // VIDEO_FRAMES_PER_LATENT + 1)
    frames = slice(VIDEO_FRAMES_PER_LATENT * first, VIDEO_FRAMES_PER_LATENT * first + recipe.frames)
    with safe_open(latents, "pt") as file:
        given = file.get_slice(size)[:, first : first + recipe.latents].float()
    with safe_open(clip, "pt") as file:
        mouth, *eyes = torch.cat([file.get_slice("box")[frames][:, None], file.get_slice("eyes")[frames]], 1).unbind(1)
    video = torch.from_numpy(load_pictures(clip, "frames", frames.start, frames.stop)).permute(3, 0, 1, 2)
    video = F.avg_pool2d(video.float() / 127.5 - 1, scale)
    weight = box_weight(mouth / scale, *video.shape[-2:], MOUTH_WEIGHT)
    for eye in eyes:
        weight = torch.maximum(weight, box_weight(eye / scale, *video.shape[-2:], EYES_WEIGHT))
    cells = video.shape[-1] // PIXELS_PER_CELL
    corner = [random.below(cells - recipe.cells + 1) for _ in range(2)]  # left and top, in cells
    if random.chance(AIMED):
        box = (mouth if random.chance(0.5) else random.choose(eyes))[0] / scale / PIXELS_PER_CELL
        jittered = (box[:2] + box[2:]) / 2 - recipe.cells / 2 + torch.rand(2, generator=generator) - 0.5
        corner = [max(0, min(cells - recipe.cells, round(float(x)))) for x in jittered]
    columns, rows = (slice(k, k + recipe.cells) for k in corner)
    noise = NOISE * random.uniform()
    given = given[..., rows, columns]
    given = given + noise * torch.randn(given.shape, generator=generator)
    weight = (weight * whole_inside(rows, columns, cells))[None]
    columns, rows = (slice(PIXELS_PER_CELL * k.start, PIXELS_PER_CELL * k.stop) for k in (columns, rows))
    return given, torch.tensor([noise]), video[..., rows, columns].contiguous(), weight[..., rows, columns].contiguous()


def whole_inside(rows: slice, columns: slice, cells: int) -> Tensor:
    """1 for the pixels of a picture of so many cells that a crop shows as the whole would, else 0.

    A crop's edges are spoiled where they are not the picture's own.
    """
    sides = []
    for part in (rows, columns):
        low, high = (PIXELS_PER_CELL * k for k in (part.start, part.stop))
        place = torch.arange(PIXELS_PER_CELL * cells)
        sides.append(
            (place >= low + (SPOILED if part.start else 0)) & (place < high - (SPOILED if part.stop < cells else 0))
        )
    return (sides[0][:, None] & sides[1]).float()


def decoder_losses(
    both: Judged, share: float, latents: Tensor, noise: Tensor, video: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """All parts, and their weighted sum as `loss`. share: how much the discriminator counts, 0 ... 1."""
    with torch.autocast("cpu", torch.bfloat16):
        made = both.network.decode(latents, clamp=False)
    losses = reconstruction_losses(made, video, weight)
    some = [x[:, :, ::JUDGED_EVERY].transpose(1, 2).flatten(0, 1) for x in (video, made, weight)]
    coarse = F.interpolate(F.avg_pool2d(some[0], BLUR), scale_factor=BLUR, mode="bilinear")
    seen = (both.judge, *some, coarse, noise.repeat_interleave(len(coarse) // len(noise), 0))
    with torch.autocast("cpu", torch.bfloat16):
        losses["judge"] = judging(*seen)
        losses["fooled"], losses["features"] = judged(*seen)
    against = sum(scale * losses[name] for name, scale in ADVERSARIAL.items())
    return losses | {"loss": losses["reconstruction"] + losses["judge"] + share * against}


def train_decoder(
    clips: Sequence[Path],
    latents: Sequence[Path],
    settings: LoopSettings,
    recipe: DecoderRecipe,
    start: Mapping[str, Tensor] | None = None,
) -> TinyDecoder:
    """Train until the settings' limit, from scratch or from weights; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    decoder = TinyDecoder(WIDTHS)
    if start is not None:
        decoder.load_state_dict(start)
    both = Judged(decoder, 1).train()
    trainer = Trainer(both, settings)

    def step_losses(step: int, draw: Draw) -> dict[str, Tensor]:
        samples = []
        for generator in draw(recipe.batch):
            k = Random(generator).below(len(clips))
            samples.append(decoder_sample(clips[k], latents[k], recipe, generator))
        share = min(1.0, max(0.0, (trainer.progress - FIRST_JUDGED) / (WHOLLY_JUDGED - FIRST_JUDGED)))
        return decoder_losses(both, share, *(torch.stack(part) for part in zip(*samples, strict=True)))

    trainer.run(step_losses)
    both.load_state_dict(trainer.averaged())
    return decoder.eval().requires_grad_(False)
