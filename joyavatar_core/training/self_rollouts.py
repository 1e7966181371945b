"""Self-rollouts of stage 1: the model samples its training clips, and a step's past contains the resulting errors.

In a model that was trained on clean pasts alone, small errors grow from block to block. The sampler therefore
goes over some of the clips several times. Each block starts from the clip's latents under much noise (as in
SDEdit, arXiv 2108.01073) instead of from noise alone. Head, gaze and lips then stay with the clip, and the difference
to the clip is an error, made on top of all earlier ones. A training step has such a past and the clip as its target.
Making the past with the model is the idea of Self-Forcing (arXiv 2506.08009) and resampling forcing (arXiv 2512.15702);
rollouts that go over a clip several times are this project's own. Several rollouts are the rows of one batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..audio import FixedFeatures
from ..model.transformer import AvatarTransformer
from ..sampling.batched import batched
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


def stream_from_clip(
    model: AvatarTransformer,
    truth: Tensor,
    features: Tensor,
    order: Sequence[int],
    *,
    seed: int,
    reference: Tensor | None = None,
    first_level: int = FIRST_LEVEL,
    with_mci: bool = True,
) -> AvatarStream:
    """A stream whose blocks start from a clip's latents instead of from noise alone.

    truth: the clip's latents [16, L, h, w]. features: its audio features [L, 4, audio_dim]. order: the latent frames to
    start from, one after another. reference: the portrait's latent [16, 1, h, w], default the clip's first frame.
    first_level: index of the level that blocks start at; a higher one stays closer to the clip.
    """
    size = model.config.block_frames
    rows = torch.cat([features[0, -1:], features[list(order)[1:]].flatten(0, 1)])
    levels = model.config.levels[min(first_level, len(model.config.levels) - 1) :]
    usual = preset("checkpoint", model.config)
    portrait = truth[:, :1] if reference is None else reference
    return AvatarStream(
        model, portrait[None].float(), FixedFeatures(rows, model.config.fps, size), psb=PSB_OFF,
        mci=usual.mci if with_mci else MCI_OFF, urcr=usual.urcr, seed=seed,
        initial_latents=truth[None, :, order], config=dataclasses.replace(model.config, levels=levels),
    )  # fmt: skip


@dataclass(frozen=True)
class SelfRollout:
    """One rollout's clip, and its latest difference to the clip, `error` [16, L, h, w]."""

    clip: int
    error: Tensor


class RolloutBatch:
    """Rollouts over several clips, several times; all are sampled in one batch.

    clips: their numbers. errors: their latest differences to the clips, [B, 16, L, h, w]. rounds: over each clip.
    generators: of the rollouts' own choices, which are clip and seed.
    The first block is the clip's own and has no error.
    """

    def __init__(
        self,
        model: AvatarTransformer,
        clips: LatentClips,
        generators: Sequence[torch.Generator],
        rounds: int,
        with_mci: bool,
    ) -> None:
        size = model.config.block_frames
        whole = clips.latents.shape[2] // size * size
        self.order = [*range(whole), *[*range(size, whole)] * (rounds - 1)]
        choices = [[int(torch.randint(n, (), generator=g)) for n in (len(clips), 2**31)] for g in generators]
        self.clips = [clip for clip, _ in choices]
        self.truth = clips.latents[self.clips]
        self.errors = torch.zeros_like(self.truth)
        streams = [
            stream_from_clip(model, truth, clips.features[clip], self.order, seed=seed, with_mci=with_mci)
            for truth, (clip, seed) in zip(self.truth, choices, strict=True)
        ]
        self.run = StreamRun(batched(streams))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> SelfRollout:
        return SelfRollout(self.clips[row], self.errors[row])

    @property
    def over(self) -> bool:
        """Whether all rounds are complete."""
        return self.run.block * self.run.stream.config.block_frames >= len(self.order)

    def advance(self) -> None:
        """Sample the next block of each rollout, and note its error."""
        made = next(self.run).latents
        place = (self.run.block - 1) * made.shape[2]
        if place:
            frames = slice(self.order[place], self.order[place] + made.shape[2])
            self.errors[:, :, frames] = made.to(self.errors) - self.truth[:, :, frames]


class SelfRollouts:
    """The `count` self-rollouts of this process, `together` of them in a batch. Batches advance in turn.

    A completed batch is replaced by a new one. Half of the batches use MCI. They are not part of a training
    checkpoint: a resumed training starts new ones.
    """

    def __init__(self, model: AvatarTransformer, clips: LatentClips, count: int, together: int = 1) -> None:
        self.model, self.clips = model, clips
        self.sizes = [min(together, count - begun) for begun in range(0, count, together)]
        self.running: dict[int, RolloutBatch] = {}
        # Of what decides how many passes a block takes: with sharded weights all processes must make the same ones.
        self._shared = torch.Generator().manual_seed(SALT)

    def __len__(self) -> int:
        return sum(map(len, self.running.values()))

    def __getitem__(self, number: int) -> SelfRollout:
        for batch in self.running.values():
            if number < len(batch):
                return batch[number]
            number -= len(batch)
        raise IndexError(number)

    @torch.no_grad()
    def advance(self, step: int, draw: Draw, world: int = 1) -> None:
        """Sample one block of the next batch in turn, or the first block of a new one if that is complete."""
        turn = step % len(self.sizes)
        if turn not in self.running or self.running[turn].over:
            if turn in self.running:
                self.running[turn].run.close()
            rounds = 2 + int(torch.randint(MOST_ROUNDS - 1, (), generator=self._shared))
            with_mci = bool(torch.randint(2, (), generator=self._shared))
            generators = draw(world * self.sizes[turn], SALT)
            self.running[turn] = RolloutBatch(self.model, self.clips, generators, rounds, with_mci)
        self.running[turn].advance()
