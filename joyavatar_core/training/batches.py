"""Batches of stage 1 and 2: the inputs of one teacher-forced pass, made on the clips' device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..device import to_device
from ..geometry import LATENT_CHANNELS
from ..sampling.flow import shifted_sigma
from ..synthetic.regions import eyes_above
from .latents import LatentClips
from .layout import COPY, PAST, TARGET, Layout
from .losses import box_weight

if TYPE_CHECKING:
    from .self_rollouts import SelfRollout
    from .teacher_forcing import ForcingRecipe

PATCH = 2  # latent cells a token, in height and width: close-ups are cut between tokens


@dataclass(frozen=True)
class ForcedBatch:
    """One pass: `latents` [B, 33, F, h, w] and their `timesteps` [B, F] and `features` [B, F, 4, audio_dim], over all
    segments; `target` flow and its `weight` [B, 1 or 16, blocks * size, h, w] over the blocks to be denoised."""

    latents: Tensor
    timesteps: Tensor
    features: Tensor
    target: Tensor
    weight: Tensor

    @property
    def count(self) -> int:
        """Frames to be denoised; they are the last of the pass."""
        return self.target.shape[2]

    @property
    def blocks(self) -> Tensor:
        """The noisy frames to be denoised, [B, 16, count, h, w]."""
        return self.latents[:, :16, -self.count :]

    @property
    def conditioning(self) -> Tensor:
        """Which of them are conditioning frames, bool [B, 1, count, h, w]."""
        return self.latents[:, 32:33, -self.count :] == 0


@dataclass(frozen=True)
class Choice:
    """The random choices of a sample, besides its noise."""

    self_rollout: SelfRollout | None  # the clip that the past is taken from
    clip: int
    corner: tuple[int, int]  # top and left cell of the close-up
    jump: int  # latent frames left out behind the first block
    still: bool  # the portrait stands for the first block in the past
    sigmas: list[float]  # noise level of every frame of the pass
    silent: bool
    noise: Tensor | None  # [16, F, h, w], where it comes from the sample's own generator


def forcing_batch(
    clips: LatentClips,
    recipe: ForcingRecipe,
    layout: Layout,
    generators: Sequence[torch.Generator],
    cells: int | None = None,
    self_rollouts: Sequence[SelfRollout] = (),
) -> ForcedBatch:
    """A random batch for a layout, of whole pictures or `cells` x `cells` latent cells of the face.

    With `self_rollouts` the past has their errors. Everything random comes from the samples' generators; on a GPU the
    noise comes from a generator there, which is seeded by that of the first sample.
    """
    height, width = (cells, cells) if cells is not None else clips.latents.shape[-2:]
    shape = (LATENT_CHANNELS, len(layout.frames), height, width)
    choices = [_choose(clips, recipe, layout, generator, cells, self_rollouts, shape) for generator in generators]
    return _assemble(clips, recipe, layout, choices, _noise(choices, generators, shape, clips.latents.device), cells)


def noise_of(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal noise [B, *shape] on a device, a sample for each generator.

    On a GPU it is drawn there, by a generator that the first sample's seeds.
    """
    if device.type != "cuda":
        return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators]).to(device)
    own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generators[0])))
    return torch.randn(len(generators), *shape, device=device, generator=own)


def _choose(
    clips: LatentClips, recipe: ForcingRecipe, layout: Layout, generator: torch.Generator, cells: int | None,
    self_rollouts: Sequence[SelfRollout], shape: tuple[int, ...],
) -> Choice:  # fmt: skip
    """A stream's first block and some later blocks of the same clip."""

    def chance(share: float) -> bool:
        return uniform() < share

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    self_rollout = self_rollouts[draw(0, len(self_rollouts) - 1)] if self_rollouts else None
    clip = draw(0, len(clips) - 1) if self_rollout is None else self_rollout.clip
    left = top = 0
    if cells is not None:
        most = (clips.latents.shape[-1] - cells, clips.latents.shape[-2] - cells)
        left, top = (
            max(0, min(PATCH * round((c - cells / 2 + uniform(-1.5, 1.5)) / PATCH), limit))
            for c, limit in zip(clips.centres[clip], most, strict=True)
        )
    jump = 0 if chance(recipe.joined) else draw(0, clips.latents.shape[2] - recipe.blocks * recipe.size)
    still, clean = chance(recipe.still), chance(recipe.clean)
    copy_sigma = uniform(*recipe.copy_noise)
    sigmas: list[float] = []
    for segment in layout.segments:
        if segment.kind == PAST:
            sigma = 0.0 if clean else uniform(0.0, recipe.most_noise)
        elif segment.kind == COPY:
            sigma = copy_sigma
        elif chance(recipe.trained_levels):
            sigma = recipe.levels[draw(0, len(recipe.levels) - 1)]
        else:
            sigma = shifted_sigma(uniform(), 2.0)
        sigmas += [sigma] * len(segment.frames)
    noise = None if clips.latents.is_cuda else torch.randn(shape, generator=generator)
    return Choice(self_rollout, clip, (top, left), jump, still, sigmas, chance(recipe.silent), noise)


def _noise(
    choices: list[Choice], generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """[B, 16, F, h, w]"""
    if device.type == "cuda":
        return noise_of(generators, shape, device)
    return torch.stack([choice.noise for choice in choices]).to(device)


def _assemble(
    clips: LatentClips, recipe: ForcingRecipe, layout: Layout, choices: list[Choice], noise: Tensor, cells: int | None
) -> ForcedBatch:
    """The batch of some choices; beside two small copies everything happens on the clips' device."""
    device, size = clips.latents.device, recipe.size
    number = torch.tensor(layout.frames)
    kinds = torch.tensor([s.kind for s in layout.segments for _ in s.frames])
    first = layout.of_kind(TARGET)[0].start
    # The first block is the clip's own; all later ones are further on, and so are the copies that precede block 1.
    moves = (number >= size) | (kinds == COPY)
    # The past has the rollout's error. The block behind it takes the error back frame by frame: otherwise a seam.
    before = torch.where(kinds == TARGET, number // size * size - 1, number)
    share = torch.where(kinds == TARGET, 1 - (number % size + 1) / (size + 1), 1.0) * (before >= size)
    conditioning = (number == 0) & (kinds != COPY)
    stills = (kinds == PAST) & (number < size)

    whole = torch.tensor([[c.clip, c.jump, *c.corner, c.still, c.silent] for c in choices])
    clip, jump, top, left, still, silent = to_device(whole, device).unbind(1)
    sigma = to_device(torch.tensor([c.sigmas for c in choices]), device)  # [B, F]
    number, moves, before, share, conditioning, stills = to_device(
        torch.stack([number.float(), moves.float(), before.float(), share, conditioning.float(), stills.float()]),
        device,
    ).unbind(0)
    conditioning, stills = conditioning.bool(), stills.bool()

    place = (number + moves * jump[:, None]).long()  # [B, F]
    rows, columns = (torch.arange(n, device=device) for n in noise.shape[-2:])
    rows, columns = rows + top[:, None], columns + left[:, None]

    def cut(source: Tensor, index: Tensor, frames: Tensor) -> Tensor:
        """source [N, 16, L, h, w], which of N [B], frames [B, F] -> float32 [B, 16, F, h, w] of the cells shown."""
        grid = (index[:, None, None, None], frames[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :])
        return source[grid[0], :, grid[1], grid[2], grid[3]].movedim(-1, 1).float()

    x0 = cut(clips.latents, clip, place)
    reference = cut(clips.latents, clip, torch.zeros_like(place[:, :1]))
    if choices[0].self_rollout is not None:
        errors = torch.stack([choice.self_rollout.error for choice in choices])
        earlier = (before + jump[:, None]).clamp(0, clips.latents.shape[2] - 1).long()
        wrong = cut(errors, torch.arange(len(choices), device=device), earlier)
        x0 = x0 + share[:, None, None] * wrong
    x0 = torch.where((still[:, None].bool() & stills)[:, None, :, None, None], reference, x0)

    timesteps = torch.where(conditioning & (torch.arange(len(conditioning), device=device) < first), 0.0, 1000 * sigma)
    strength = torch.where(conditioning, 0.0, sigma)[:, None, :, None, None]
    noisy = (1 - strength) * x0 + strength * noise
    mask = (~conditioning).float()[None, None, :, None, None].expand(len(choices), 1, -1, *noise.shape[-2:])
    features = clips.features[clip[:, None], place] * (1 - silent)[:, None, None, None]
    boxes = clips.boxes[clip[:, None], place[:, first:]] - torch.stack([left, top, left, top], 1)[:, None]
    weight = torch.maximum(
        box_weight(boxes, *noise.shape[-2:], recipe.mouth_weight),
        box_weight(eyes_above(boxes), *noise.shape[-2:], recipe.eyes_weight),
    )
    return ForcedBatch(
        latents=torch.cat([noisy, reference.expand_as(x0), mask], dim=1), timesteps=timesteps, features=features,
        target=(noise - x0)[:, :, first:], weight=(weight * (~conditioning[first:]).float()[:, None, None])[:, None],
    )  # fmt: skip
