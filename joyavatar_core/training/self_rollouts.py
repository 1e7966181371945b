"""Clips as the model itself performs them, for hours if need be: the past that its own mistakes leave behind.

A model that has only ever seen a clean past trusts it, and small mistakes grow from block to block. So streams of the
very sampler go round and round some of the clips. Each block begins from what the clip shows under much noise (as in
SDEdit, arXiv 2108.01073) instead of from noise alone, so head, gaze and lips stay with the clip, and what differs is a
mistake, made on top of all earlier ones. Training shows these pasts and asks for the clip. Making the past with the
model is the idea of Self-Forcing (arXiv 2506.08009) and resampling forcing (arXiv 2512.15702); streams without an end
are this project's way of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..audio import FixedFeatures
from ..config import AvatarConfig
from ..model.transformer import AvatarTransformer
from ..sampling.mci import MCI_OFF
from ..sampling.noise import INITIAL, NoiseSource
from ..sampling.presets import preset
from ..sampling.psb import PSB_OFF
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream
from .latents import LatentClips
from .loop import Draw

SALT = 2  # of the performers' random numbers
MOST_ROUNDS = 8  # and two at least
FIRST_LEVEL = 1  # of the trained levels; level 0 would show nothing of the clip


class FollowingNoise(NoiseSource):
    """Noise with a little of a clip in it: blocks begin at level `sigma`, from frames [16, F, h, w] of the clip."""

    def __init__(self, seed: int, frames: Tensor, sigma: float, carry: float = 0.0) -> None:
        super().__init__(seed, carry)
        self.frames, self.sigma = frames, sigma

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        noise = super().draw(role, block, step, shape)
        if role != INITIAL:
            return noise
        shown = self.frames[:, block * shape[2] : (block + 1) * shape[2]].float()
        return (1 - self.sigma) * shown + self.sigma * noise.to(shown)


class Performer:
    """A model under another config: the very weights, as they are at every moment, sharded or not."""

    def __init__(self, model: AvatarTransformer, config: AvatarConfig) -> None:
        self.model, self.config = model, config

    def __call__(self, *inputs: object) -> Tensor | None:
        return self.model(*inputs)

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)


def following(
    model: AvatarTransformer,
    truth: Tensor,
    features: Tensor,
    order: Sequence[int],
    *,
    seed: int,
    reference: Tensor | None = None,
    first_level: int = FIRST_LEVEL,
    with_mci: bool = True,
) -> StreamRun:
    """A run of the sampler whose blocks begin from a clip's latents instead of from noise alone.

    truth [16, L, h, w] and features [L, 4, audio_dim]: the clip's. order: which of its latents are followed, one after
    another. reference [16, 1, h, w]: the portrait's latent, default the first of the clip. first_level: of the
    checkpoint's levels, the one that blocks begin at; the higher, the closer to the clip.
    """
    size = model.config.block_frames
    rows = torch.cat([features[0, -1:], features[list(order)[1:]].flatten(0, 1)])
    levels = model.config.levels[min(first_level, len(model.config.levels) - 1) :]
    performer = Performer(model, dataclasses.replace(model.config, levels=levels))
    usual = preset("checkpoint", model.config)
    mci = usual.mci if with_mci else MCI_OFF
    portrait = truth[:, :1] if reference is None else reference
    return iter(
        AvatarStream(
            performer, portrait[None].float(), FixedFeatures(rows, model.config.fps, size), psb=PSB_OFF, mci=mci,
            urcr=usual.urcr, seed=seed, noise=FollowingNoise(seed, truth[:, order], levels[0][1], mci.carried),
        )
    )  # fmt: skip


class Performance:
    """One clip, performed over and over, for some rounds; `error` [16, L, h, w] is what the latest round got wrong.

    Half of the performances are with MCI. The first block is the clip's own.
    """

    def __init__(self, model: AvatarTransformer, clips: LatentClips, generator: torch.Generator) -> None:
        clip, again, with_mci, seed = (
            int(torch.randint(stop, (), generator=generator)) for stop in (len(clips), MOST_ROUNDS - 1, 2, 2**31)
        )
        size = model.config.block_frames
        whole = clips.latents.shape[2] // size * size
        self.order = [*range(whole), *[*range(size, whole)] * (1 + again)]
        self.clip, self.error = clip, torch.zeros_like(clips.latents[clip])
        self.truth = clips.latents[clip]
        self.run = following(model, self.truth, clips.features[clip], self.order, seed=seed, with_mci=bool(with_mci))

    @property
    def over(self) -> bool:
        """Whether all rounds are done."""
        return self.run.block * self.run.stream.model.config.block_frames >= len(self.order)

    def advance(self) -> None:
        """Make the next block, and see what is wrong with it."""
        made = next(self.run).latents[0]
        first = self.run.block * made.shape[1] - made.shape[1]
        frames = self.order[first : first + made.shape[1]]
        if first:
            self.error[:, frames] = made.to(self.error) - self.truth[:, frames]


class Performances:
    """`count` performances at a time, of this process; each makes a block when its turn comes, then others do.

    They are not in a run's checkpoint: a resumed run begins them anew.
    """

    def __init__(self, model: AvatarTransformer, clips: LatentClips, count: int) -> None:
        self.model, self.clips, self.count = model, clips, count
        self.running: dict[int, Performance] = {}

    def __len__(self) -> int:
        return len(self.running)

    def __getitem__(self, number: int) -> Performance:
        return list(self.running.values())[number]

    @torch.no_grad()
    def advance(self, step: int, draw: Draw, world: int = 1) -> None:
        """One more block of the one whose turn it is at a step, or the first block of a new one in its place."""
        turn = step % self.count
        if turn not in self.running or self.running[turn].over:
            self.running[turn] = Performance(self.model, self.clips, draw(world, SALT)[0])
        self.running[turn].advance()
