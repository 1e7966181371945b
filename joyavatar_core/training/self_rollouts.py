"""Self-rollouts of stage 1: the model samples its training clips, and a step's past contains the resulting errors.

In a model that was trained on clean pasts alone, small errors grow from block to block. The sampler therefore
goes over some of the clips several times. Each block starts from the clip's latents under much noise (as in
SDEdit, arXiv 2108.01073) instead of from noise alone. Head, gaze and lips then stay with the clip, and the difference
to the clip is an error, made on top of all earlier ones. A training step has such a past and the clip as its target.
Making the past with the model is the idea of Self-Forcing (arXiv 2506.08009) and resampling forcing (arXiv 2512.15702);
rollouts that go over a clip several times are this project's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..audio import FixedFeatures
from ..model.transformer import AvatarTransformer
from ..sampling.mci import MCI_OFF
from ..sampling.presets import preset
from ..sampling.psb import PSB_OFF
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream
from .latents import LatentClips
from .loop import Draw

SALT = 2  # of the self-rollouts' random numbers
MOST_ROUNDS = 8  # over a clip; at least two
FIRST_LEVEL = 1  # of the trained levels; level 0 is noise alone


def run_from_clip(
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
    """A run of the sampler whose blocks start from a clip's latents instead of from noise alone.

    truth: the clip's latents [16, L, h, w]. features: its audio features [L, 4, audio_dim]. order: the latent frames to
    start from, one after another. reference: the portrait's latent [16, 1, h, w], default the clip's first frame.
    first_level: index of the level that blocks start at; a higher one stays closer to the clip.
    """
    size = model.config.block_frames
    rows = torch.cat([features[0, -1:], features[list(order)[1:]].flatten(0, 1)])
    levels = model.config.levels[min(first_level, len(model.config.levels) - 1) :]
    usual = preset("checkpoint", model.config)
    portrait = truth[:, :1] if reference is None else reference
    stream = AvatarStream(
        model, portrait[None].float(), FixedFeatures(rows, model.config.fps, size), psb=PSB_OFF,
        mci=usual.mci if with_mci else MCI_OFF, urcr=usual.urcr, seed=seed,
        initial_latents=truth[None, :, order], config=dataclasses.replace(model.config, levels=levels),
    )  # fmt: skip
    return StreamRun(stream)


class SelfRollout:
    """A rollout over one clip, several times; `error` [16, L, h, w] is its latest difference to the clip.

    Half of the rollouts use MCI. The first block is the clip's own and has no error.
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
        self.run = run_from_clip(
            model, self.truth, clips.features[clip], self.order, seed=seed, with_mci=bool(with_mci)
        )  # fmt: skip

    @property
    def over(self) -> bool:
        """Whether all rounds are complete."""
        return self.run.block * self.run.stream.config.block_frames >= len(self.order)

    def advance(self) -> None:
        """Sample the next block, and note its error."""
        made = next(self.run).latents[0]
        first = self.run.block * made.shape[1] - made.shape[1]
        frames = self.order[first : first + made.shape[1]]
        if first:
            self.error[:, frames] = made.to(self.error) - self.truth[:, frames]


class SelfRollouts:
    """The `count` self-rollouts of this process. They advance in turn. A completed one is replaced by a new one.

    They are not part of a training checkpoint: a resumed training starts new ones.
    """

    def __init__(self, model: AvatarTransformer, clips: LatentClips, count: int) -> None:
        self.model, self.clips, self.count = model, clips, count
        self.running: dict[int, SelfRollout] = {}

    def __len__(self) -> int:
        return len(self.running)

    def __getitem__(self, number: int) -> SelfRollout:
        return list(self.running.values())[number]

    @torch.no_grad()
    def advance(self, step: int, draw: Draw, world: int = 1) -> None:
        """Sample one block of the next rollout in turn, or the first block of a new one if that is complete."""
        turn = step % self.count
        if turn not in self.running or self.running[turn].over:
            if turn in self.running:
                self.running[turn].run.close()
            self.running[turn] = SelfRollout(self.model, self.clips, draw(world, SALT)[0])
        self.running[turn].advance()
