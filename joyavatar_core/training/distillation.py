"""Stage 2 of the transformer: it trains on its own rollouts, so that errors do not add up.

The sampler that users run makes the rollouts (with PSB, MCI and URCR's resets), a pool of them at a time. Distribution
matching (DMD, arXiv 2405.14867; on the student's own rollouts as in Self-Forcing, arXiv 2506.08009) moves the student
on excerpts of the pool: towards the distribution of stage 1 (the teacher) given that past and the audio, away from its
own (the critic, trained beside it). Two things are this project's own: both score models see the past in the layouts of
stage 1, and rollouts are used several times.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..audio import FixedFeatures
from ..device import to_device
from ..geometry import LATENT_CHANNELS
from ..model.transformer import AvatarTransformer
from ..sampling.batched import batched
from ..sampling.flow import shifted_sigma
from ..sampling.presets import Preset, preset
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream
from .batches import ForcedBatch, forcing_batch, noise_of
from .initial_weights import SHARDED_METHODS
from .latents import LatentClips
from .layout import Layout
from .loop import Draw, LoopSettings, Trainer
from .losses import flow_loss
from .parallel import shard
from .teacher_forcing import ForcedPass, ForcingRecipe

# The checkpoint's own settings: a clean past behind the portrait, and copies at one level before every block.
EXCERPTS = ForcingRecipe(
    clean=1.0, still=1.0, trained_levels=1.0, silent=0.0, copied_every=1, copy_noise=(0.25, 0.25)
)  # fmt: skip
POOL = 1  # salt of the rollouts' random numbers; 0 is the excerpts'


@dataclass(frozen=True)
class DistillRecipe:
    """Settings of stage 2.

    pool: rollouts made at a time. pool_steps: steps that use them. rollout_batch: rollouts sampled in one batch.
    critic_steps: every so many steps the student moves; the critic moves in all.
    guidance: classifier-free guidance of the teacher, on the audio.
    score_shift: timestep shift of the noise levels at which the score models are evaluated.
    bidirectional_scores: whether they attend to all blocks at once, without a past.
    excerpts: how excerpts are filled; their past is as clean as the sampler's.
    """

    pool: int = 8
    pool_steps: int = 48
    rollout_batch: int = 8
    critic_steps: int = 3
    guidance: float = 2.0
    score_shift: float = 3.0
    bidirectional_scores: bool = False
    excerpts: ForcingRecipe = EXCERPTS


@dataclass(frozen=True)
class MatchingPasses:
    """The passes over one layout of the student and of the two score models: the critic and the teacher."""

    student: ForcedPass
    critic: ForcedPass
    teacher: ForcedPass

    @classmethod
    def of(
        cls,
        pair: nn.ModuleDict,
        teacher: AvatarTransformer,
        recipe: DistillRecipe,
        copies: int,
        compiled: bool = False,
    ) -> MatchingPasses:
        """Of a `pair` that holds "student" and "critic", for excerpts with so many injected frames a block."""
        layout = recipe.excerpts.layout(copies)
        score_layout = Layout.together(layout.blocks, layout.size) if recipe.bidirectional_scores else layout
        return cls(
            student=ForcedPass(pair["student"], layout, compiled),
            critic=ForcedPass(pair["critic"], score_layout, compiled),
            teacher=ForcedPass(teacher, score_layout, compiled),
        )


def matching_losses(
    passes: MatchingPasses, recipe: DistillRecipe, batch: ForcedBatch, noise: Tensor, u: Tensor, student_moves: bool
) -> dict[str, Tensor]:
    """The critic's loss on what the student makes of a batch and, where it is to move, the student's.

    `noise` is like the batch's target; `u` [B] in 0 ... 1 gives the noise level at which the score models see each
    sample.
    """
    with torch.set_grad_enabled(student_moves):
        made = clean_estimate(passes.student, batch)
    sigma = shifted_sigma(0.02 + 0.96 * u, recipe.score_shift)
    level = sigma.view(-1, 1, 1, 1, 1)
    scored = without_past(batch) if recipe.bidirectional_scores else batch
    noisy = noised(scored, (1 - level) * made.detach() + level * noise, sigma)
    flow = passes.critic(noisy.latents, noisy.timesteps, noisy.features)
    losses = {"critic": flow_loss(flow, noise - made.detach(), batch.weight)}
    if student_moves:
        with torch.no_grad():
            likely = guided(passes.teacher, noisy, recipe.guidance)
            own = noisy.blocks - level * flow.float()
            scale = (made - likely).abs().mean((1, 2, 3, 4), keepdim=True).clamp_min(1e-3)
            better = made - (own - likely) / scale
        losses["matching"] = 0.5 * flow_loss(made, better, batch.weight)
    return losses | {"loss": sum(losses.values())}


def clean_estimate(one: ForcedPass, batch: ForcedBatch) -> Tensor:
    """The predicted clean blocks of a pass, [B, 16, F, h, w]; conditioning frames stay."""
    flow = one(batch.latents, batch.timesteps, batch.features).float()
    sigma = batch.timesteps[:, None, -batch.count :, None, None] / 1000
    return torch.where(batch.conditioning, batch.blocks, batch.blocks - sigma * flow)


def noised(batch: ForcedBatch, blocks: Tensor, sigma: Tensor) -> ForcedBatch:
    """The same batch with other blocks to be denoised, at levels [B]; conditioning frames stay."""
    latents, timesteps = batch.latents.clone(), batch.timesteps.clone()
    latents[:, :LATENT_CHANNELS, -batch.count :] = torch.where(batch.conditioning, batch.blocks, blocks)
    timesteps[:, -batch.count :] = 1000 * sigma[:, None]
    return replace(batch, latents=latents, timesteps=timesteps)


def without_past(batch: ForcedBatch) -> ForcedBatch:
    """Only the blocks to be denoised, with nothing before them."""
    own = slice(-batch.count, None)
    return replace(
        batch, latents=batch.latents[:, :, own], timesteps=batch.timesteps[:, own], features=batch.features[:, own]
    )


def guided(one: ForcedPass, batch: ForcedBatch, guidance: float) -> Tensor:
    """The clean estimate under classifier-free guidance on the audio; 1 is no guidance."""
    conditional = clean_estimate(one, batch)
    if guidance == 1:
        return conditional
    unconditional = clean_estimate(one, replace(batch, features=torch.zeros_like(batch.features)))
    return unconditional + guidance * (conditional - unconditional)


@torch.no_grad()
def rollouts(
    model: AvatarTransformer, clips: LatentClips, settings: Preset, generators: list[torch.Generator], together: int = 1
) -> LatentClips:
    """Rollouts of the model with the voices and portraits of random clips, as long as these are in whole blocks.

    together: rollouts that are sampled in one batch.
    """
    size = model.config.block_frames
    whole = clips.latents.shape[2] // size * size
    streams, chosen = [], []
    for generator in generators:
        clip, seed = (int(torch.randint(stop, (), generator=generator)) for stop in (len(clips), 2**31))
        rows = torch.cat([clips.features[clip][0, -1:], clips.features[clip][1:whole].flatten(0, 1)])
        stream = AvatarStream(
            model, clips.latents[clip][None, :, :1].float(), FixedFeatures(rows, model.config.fps, size),
            psb=settings.psb, mci=settings.mci, urcr=settings.urcr, seed=seed,
        )  # fmt: skip
        streams.append(stream)
        chosen.append(clip)
    made = []
    for first in range(0, len(streams), together):
        with StreamRun(batched(streams[first : first + together])) as run:
            made.append(torch.cat([block.latents for block in run], dim=2).bfloat16())
    return LatentClips(torch.cat(made), clips.features[chosen, :whole], clips.boxes[chosen, :whole])


def distil(
    student: AvatarTransformer,
    teacher: AvatarTransformer,
    clips: LatentClips,
    settings: LoopSettings,
    recipe: DistillRecipe = DistillRecipe(),
    compiled: bool = False,
    bfloat16: bool = True,
    sharded: bool = False,
) -> dict[str, Tensor]:
    """Train until the settings' limit; the critic starts as the teacher. Returns the student's averaged weights."""
    torch.manual_seed(settings.seed)
    excerpts = recipe.excerpts
    pair = nn.ModuleDict({"student": student, "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    teacher.eval().requires_grad_(False)
    for model in (pair, teacher):
        model.to(settings.device)
    clips = clips.to(settings.device)
    for model in (*pair.values(), teacher) if sharded else ():
        shard(model, SHARDED_METHODS)
    trainer = Trainer(pair, settings)
    passes = {copies: MatchingPasses.of(pair, teacher, recipe, copies, compiled) for copies in {0, excerpts.copies}}
    sampler, pool = preset("checkpoint", teacher.config), Pool(pair["student"], clips, recipe)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        copies = excerpts.copies if step % excerpts.copied_every == 0 else 0
        cells, room = excerpts.crop(step, *clips.latents.shape[-2:])
        generators = draw(room * excerpts.batch)
        layout = passes[copies].student.layout
        batch = forcing_batch(pool.at(step, sampler, draw), excerpts, layout, generators, cells)
        noise = noise_of(generators, batch.target.shape[1:], batch.target.device)
        u = to_device(torch.stack([torch.rand((), generator=generator) for generator in generators]), noise.device)
        moves = step % recipe.critic_steps == 0  # at the first step too: the optimizer's state is then complete
        with torch.autocast(batch.target.device.type, torch.bfloat16, enabled=bfloat16):
            return matching_losses(passes[copies], recipe, batch, noise, u, moves)

    trainer.run(step_loss)
    mark = "student."
    return {name.removeprefix(mark): one for name, one in trainer.averaged().items() if name.startswith(mark)}


class Pool:
    """Rollouts of the student as it was at the last multiple of `pool_steps`; a resumed run generates them again."""

    def __init__(self, student: nn.Module, clips: LatentClips, recipe: DistillRecipe) -> None:
        self.student, self.clips, self.recipe = student, clips, recipe
        self.made: LatentClips | None = None

    def at(self, step: int, settings: Preset, draw: Draw) -> LatentClips:
        """The pool for a step; it is generated again when it is due."""
        if self.made is None or step % self.recipe.pool_steps == 0:
            generators = draw(self.recipe.pool, POOL)
            self.made = rollouts(self.student, self.clips, settings, generators, self.recipe.rollout_batch)
        return self.made
