"""Stage 1 of the transformer: teacher forcing on noised latents, in the layouts that the sampler uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import AvatarConfig
from ..geometry import tokens_per_frame
from ..model.transformer import AvatarTransformer, SelfContext
from .batches import forcing_batch
from .initial_weights import SHARDED_METHODS, new_transformer
from .latents import LatentClips
from .layout import TARGET, Layout
from .loop import Draw, LoopSettings, Trainer
from .losses import flow_loss
from .parallel import shard
from .self_rollouts import SelfRollouts


@dataclass(frozen=True)
class ForcingRecipe:
    """How a pass is filled.

    blocks: blocks of a pass. size: latent frames of a block. batch: samples of a step.
    copies: injected frames. copied_every: every so many steps they are shown. copy_noise: range of their noise level.
    clean: share of samples with a clean past. most_noise: highest noise level of any other past.
    still: share whose first block is cached as the portrait. joined: share without a jump behind the first block.
    silent: share without audio. trained_levels: share of targets at a level the sampler uses. levels: these levels.
    mouth_weight, eyes_weight: loss weights there; elsewhere it is 1.
    close: of every 4 steps, those that show the face alone, from brows to chin, with more samples instead.
    close_cells: height and width of that part, in latent cells.
    own: of every 3 steps, those whose past is a self-rollout's. self_rollouts: their number in each process.
    rollout_batch: self-rollouts that are sampled in one batch. advance_every: for every so many steps one of them
        advances by a block; a batch advances as much less often as it has rows.
    guidance: scale of the audio's effect, where 1 is its effect in the data.
    """

    blocks: int = 5
    size: int = 3
    batch: int = 4
    copies: int = 3
    copied_every: int = 3
    copy_noise: tuple[float, float] = (0.1, 0.35)
    clean: float = 0.5
    most_noise: float = 0.35
    still: float = 0.7
    joined: float = 0.35
    silent: float = 0.08
    trained_levels: float = 0.6
    levels: tuple[float, ...] = (1.0, 10 / 11, 0.8, 2 / 3, 0.5, 2 / 7)
    mouth_weight: float = 8.0
    eyes_weight: float = 4.0
    close: int = 2
    close_cells: int = 8
    own: int = 2
    self_rollouts: int = 16
    rollout_batch: int = 4
    advance_every: int = 1
    guidance: float = 1.0

    def layout(self, copies: int) -> Layout:
        """The layout of a pass with so many injected frames a block."""
        return Layout.of(self.blocks, self.size, copies)

    def crop(self, step: int, height: int, width: int) -> tuple[int | None, int]:
        """The crop of a step's pictures, which have height x width latent cells.

        Returns the side of a close-up in cells, None for the whole picture, and the number of such crops that replace
        one whole picture.
        """
        if step % 4 < self.close and min(height, width) > self.close_cells:
            return self.close_cells, height * width // self.close_cells**2
        return None, 1


def train_forcing(
    clips: LatentClips,
    settings: LoopSettings,
    recipe: ForcingRecipe,
    config: AvatarConfig,
    start: dict[str, Tensor] | None = None,
    compiled: bool = False,
    bfloat16: bool = True,
    sharded: bool = False,
) -> dict[str, Tensor]:
    """Train until the settings' limit, from scratch or from the weights `start`; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    model = new_transformer(config)
    if start is not None:
        model.load_state_dict(start)
    model.to(settings.device)
    clips = clips.to(settings.device)
    if sharded:
        shard(model, SHARDED_METHODS)
    trainer = Trainer(model, settings)
    passes = {copies: ForcedPass(model, recipe.layout(copies), compiled) for copies in {0, recipe.copies}}
    self_rollouts = SelfRollouts(model, clips, recipe.self_rollouts, recipe.rollout_batch)
    advance_every = recipe.advance_every * recipe.rollout_batch

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        copies = recipe.copies if step % recipe.copied_every == 0 else 0
        cells, room = recipe.crop(step, *clips.latents.shape[-2:])
        if recipe.own and step % advance_every == 0:
            self_rollouts.advance(step // advance_every, draw, trainer.share.world)
        own = self_rollouts if (step + 1) % 3 < recipe.own else None
        batch = forcing_batch(clips, recipe, passes[copies].layout, draw(room * recipe.batch), cells, own)
        with torch.autocast(clips.latents.device.type, torch.bfloat16, enabled=bfloat16):
            flow = passes[copies](batch.latents, batch.timesteps, batch.features)
            target = batch.target
            if recipe.guidance != 1:
                with torch.no_grad():
                    silent = passes[copies](batch.latents, batch.timesteps, torch.zeros_like(batch.features))
                target = guided_target(target, flow.detach().float(), silent.float(), recipe.guidance)
        return {"loss": flow_loss(flow, target, batch.weight)}

    trainer.run(step_loss)
    return trainer.averaged()


def guided_target(target: Tensor, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """The target of a model that needs no classifier-free guidance: unconditional + guidance * (data - unconditional).

    conditional, unconditional: the model's flows with and without audio (model guidance, arXiv 2502.12154).
    """
    return target + (1 - 1 / guidance) * (conditional - unconditional)


COMPILED_PASSES = 64  # most compiled forms: a model's layout, crop, and whether gradients are needed


class ForcedPass:
    """The transformer over one layout: (latents, timesteps, features) -> flow of the blocks to be denoised.

    compiled: through torch.compile, anew for every shape of the latents.
    """

    def __init__(self, model: AvatarTransformer, layout: Layout, compiled: bool = False) -> None:
        self.model, self.layout = model, layout
        self._run = self._flow
        if compiled:
            limits = torch._dynamo.config
            limits.recompile_limit = max(limits.recompile_limit, COMPILED_PASSES)
            self._run = torch.compile(self._flow, dynamic=False)
        self.first_target = self.layout.of_kind(TARGET)[0].start
        device = next(model.parameters()).device
        self.text = torch.zeros(1, model.config.text_tokens, model.config.text_dim, device=device)
        self._contexts: dict[tuple[int, int], SelfContext] = {}  # by the picture's height and width

    def __call__(self, latents: Tensor, timesteps: Tensor, features: Tensor) -> Tensor:
        self._prepare(*latents.shape[-2:])
        return self._run(latents, timesteps, features)

    def _prepare(self, height: int, width: int) -> None:
        """Make what pictures of so many latent cells need, once; compiled code can only read it."""
        if (height, width) not in self._contexts:
            rope = self.model.rope(self.layout.frames, height, width, self.text.device)
            attention = self.layout.attention(tokens_per_frame((width, height)), self.text.device)
            self._contexts[height, width] = SelfContext(rope, attention=attention)

    def _flow(self, latents: Tensor, timesteps: Tensor, features: Tensor) -> Tensor:
        model = self.model
        text = model.encode_text(self.text.expand(len(latents), -1, -1))
        audio = model.project_audio(model.encode_audio(features))
        flow = model(latents, timesteps, text, audio, self._contexts[tuple(latents.shape[-2:])])
        return flow[:, :, self.first_target :]
