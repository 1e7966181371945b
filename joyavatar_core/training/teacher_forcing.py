"""Stage 1 of the transformer: teacher forcing on noised latents, in the very layouts that sampling uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import AvatarConfig
from ..model.transformer import AvatarTransformer, SelfContext
from ..sampling.flow import shifted_sigma
from .initial_weights import SHARDED_METHODS, new_transformer
from .latents import LatentClips
from .layout import COPY, PAST, TARGET, Layout
from .loop import Draw, LoopSettings, Trainer
from .losses import box_weight, flow_loss
from .parallel import shard
from .self_rollouts import Performance, Performances

PATCH = 2  # latent cells a token, in height and width: close-ups are cut between tokens
EYES_RISE, EYES_SIZE = 1.8, (1.3, 0.8)  # above the mouth's middle and against its region, in units of half that


@dataclass(frozen=True)
class ForcingRecipe:
    """How a pass is filled.

    blocks, size: of a pass, in blocks and latent frames. copies: injected frames, shown in every third step.
    clean: share of samples with a clean past; else each past block is noised up to `most_noise`.
    still: share whose first block is remembered as the portrait. joined: share that goes on from its first block
    without a jump. silent: share without a voice.
    trained_levels: share of targets at a level the sampler uses.
    mouth_weight, eyes_weight: of an error there, where 1 is that of any other place.
    close: of every 4 steps, those that show only `close_cells` x `close_cells` latent cells, from brows to chin, and as
    many more samples as that makes room for: most of a picture is neither lips nor eyes.
    own: of every 3 steps, those whose past is the model's own work, by one of `performers` streams in each process.
    guidance: how many times as much the voice is to do as it does in the data; 1 learns the data.
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
    performers: int = 16
    guidance: float = 1.0

    def layout(self, copies: int) -> Layout:
        """What a pass with so many injected frames a block looks like."""
        return Layout.of(self.blocks, self.size, copies)

    def shown(self, step: int, height: int, width: int) -> tuple[int | None, int]:
        """What a step shows of pictures of so many latent cells: the side of a close-up, None for all of it; and how
        many samples of that take the place of one whole picture."""
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
    if sharded:
        shard(model, SHARDED_METHODS)
    trainer = Trainer(model, settings)
    passes = {copies: ForcedPass(model, recipe.layout(copies)) for copies in {0, recipe.copies}}
    runs: dict[int, Callable] = {
        copies: torch.compile(one, dynamic=False) if compiled else one for copies, one in passes.items()
    }
    performances = Performances(model, clips, recipe.performers)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        copies = recipe.copies if step % recipe.copied_every == 0 else 0
        cells, room = recipe.shown(step, *clips.latents.shape[-2:])
        if recipe.own:
            performances.advance(step, draw, trainer.share.world)
        own = performances if (step + 1) % 3 < recipe.own else None
        batch = forcing_batch(clips, recipe, passes[copies].layout, draw(room * recipe.batch), cells, own)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            flow = runs[copies](batch.latents, batch.labels, batch.features)
            target = batch.target
            if recipe.guidance != 1:
                with torch.no_grad():
                    silent = runs[copies](batch.latents, batch.labels, torch.zeros_like(batch.features))
                target = guided_target(target, flow.detach().float(), silent.float(), recipe.guidance)
        return {"loss": flow_loss(flow, target, batch.weight)}

    trainer.run(step_loss)
    return trainer.averaged()


def guided_target(target: Tensor, heard: Tensor, silent: Tensor, guidance: float) -> Tensor:
    """A target whose model ends at silent + guidance * (data - silent), as classifier-free guidance would, in one pass.

    heard, silent: the model's own flows with and without the voice (model guidance, arXiv 2502.12154).
    """
    return target + (1 - 1 / guidance) * (heard - silent)


@dataclass(frozen=True)
class ForcedBatch:
    """One pass: `latents` [B, 33, F, h, w] and their `labels` [B, F] and `features` [B, F, 4, audio_dim], over all
    segments; `target` flow and its `weight` [B, 1 or 16, blocks * size, h, w] over the blocks to be denoised."""

    latents: Tensor
    labels: Tensor
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
    def given(self) -> Tensor:
        """Which of them are given instead, bool [B, 1, count, h, w]."""
        return self.latents[:, 32:33, -self.count :] == 0


class ForcedPass:
    """The transformer over one layout: (latents, labels, features) -> flow of the blocks to be denoised."""

    def __init__(self, model: AvatarTransformer, layout: Layout) -> None:
        self.model, self.layout = model, layout
        self.first_target = self.layout.of_kind(TARGET)[0].start
        self.text = torch.zeros(1, model.config.text_tokens, model.config.text_dim)

    def __call__(self, latents: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        model, (height, width) = self.model, latents.shape[-2:]
        rope = model.rope(self.layout.frames, height, width).to(torch.complex64)  # rotating in float64 is slow
        attention = self.layout.attention(height * width // 4)
        text = model.encode_text(self.text.expand(len(latents), -1, -1))
        audio = model.project_audio(model.encode_audio(features))
        flow = model(latents, labels, text, audio, SelfContext(rope, attention=attention))
        return flow[:, :, self.first_target :]


def forcing_batch(
    clips: LatentClips,
    recipe: ForcingRecipe,
    layout: Layout,
    generators: Sequence[torch.Generator],
    cells: int | None = None,
    performances: Sequence[Performance] = (),
) -> ForcedBatch:
    """A random batch for a layout, of whole pictures or `cells` x `cells` latent cells of the face.

    With `performances` the past is theirs, mistakes and all. Everything random comes from the samples' generators.
    """
    samples = [_sample(clips, recipe, layout, generator, cells, performances) for generator in generators]
    fields = [field.name for field in dataclasses.fields(ForcedBatch)]
    return ForcedBatch(**{name: torch.stack([sample[name] for sample in samples]) for name in fields})


def _sample(
    clips: LatentClips,
    recipe: ForcingRecipe,
    layout: Layout,
    generator: torch.Generator,
    cells: int | None,
    performances: Sequence[Performance],
) -> dict[str, Tensor]:
    """A stream's first block and some later blocks of the same clip, as one sample of `ForcedBatch`."""

    def chance(share: float) -> bool:
        return uniform() < share

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    performance = performances[draw(0, len(performances) - 1)] if performances else None
    clip = draw(0, len(clips) - 1) if performance is None else performance.clip
    size, total = recipe.size, recipe.blocks * recipe.size
    latents, boxes = clips.latents[clip].float(), clips.boxes[clip]
    error = torch.zeros_like(latents) if performance is None else performance.error.float()
    if cells is not None:
        left, top = (PATCH * round((c - cells / 2 + uniform(-1.5, 1.5)) / PATCH) for c in _centre(boxes))
        left, top = max(0, min(left, latents.shape[-1] - cells)), max(0, min(top, latents.shape[-2] - cells))
        latents, error = (x[..., top : top + cells, left : left + cells] for x in (latents, error))
        boxes = boxes - torch.tensor([left, top, left, top])
    jump = 0 if chance(recipe.joined) else draw(0, latents.shape[1] - total)
    number = torch.tensor(layout.frames)

    kinds = torch.tensor([s.kind for s in layout.segments for _ in s.frames])
    # The first block is the clip's own; all later ones are further on, and so are the copies that precede block 1.
    place = torch.where((number < size) & (kinds != COPY), number, number + jump)
    # A past is wrong by its error; what goes on from it takes that back frame by frame, or there would be a seam.
    before = torch.where(kinds == TARGET, number // size * size - 1, number)
    share = torch.where(kinds == TARGET, 1 - (number % size + 1) / (size + 1), 1.0) * (before >= size)
    wrong = error[:, (before + jump).clamp(0, latents.shape[1] - 1)]
    x0 = latents[:, place] + share[:, None, None] * wrong  # [16, F, h, w]
    reference = latents[:, :1]
    given = (number == 0) & (kinds != COPY)
    if chance(recipe.still):
        stills = (kinds == PAST) & (number < size)
        x0 = torch.where(stills[None, :, None, None], reference, x0)

    clean = chance(recipe.clean)
    copy_sigma = uniform(*recipe.copy_noise)
    sigmas = []
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
    sigma = torch.tensor(sigmas)
    labels = torch.where(given & (kinds == PAST), 0.0, 1000 * sigma)
    strength = torch.where(given, 0.0, sigma)[None, :, None, None]
    noise = torch.randn(x0.shape, generator=generator)
    noisy = (1 - strength) * x0 + strength * noise

    mask = (~given).float()[None, :, None, None].expand(1, -1, *x0.shape[-2:])
    features = clips.features[clip][place]
    if chance(recipe.silent):
        features = torch.zeros_like(features)
    first = layout.of_kind(TARGET)[0].start
    shown, cut = boxes[place[first:]], x0.shape[-2:]
    weight = torch.maximum(
        box_weight(shown, *cut, recipe.mouth_weight), box_weight(eyes_above(shown), *cut, recipe.eyes_weight)
    )
    return {
        "latents": torch.cat([noisy, reference.expand_as(x0), mask]),
        "labels": labels,
        "features": features,
        "target": (noise - x0)[:, first:],
        "weight": (weight * (~given[first:]).float()[:, None, None])[None],
    }


def eyes_above(mouth: Tensor) -> Tensor:
    """The region of eyes, brows and glasses, from the mouth's: drawn faces (`portrait.py`) have both at one place.

    Both are [..., 4]: left, top, right, bottom, in the unit of what is given (pixels or latent cells).
    """
    (x, y), half = (mouth[..., :2] + mouth[..., 2:]).div(2).unbind(-1), (mouth[..., 2:] - mouth[..., :2]) / 2
    middle = torch.stack([x, y - EYES_RISE * half[..., 1]], dim=-1)
    half = half * half.new_tensor(EYES_SIZE)
    return torch.cat([middle - half, middle + half], dim=-1)


def _centre(boxes: Tensor) -> tuple[float, float]:
    """The middle of eyes and mouth over a clip, in cells from the left and from the top."""
    eyes, mouth = eyes_above(boxes).mean(0), boxes.mean(0)
    return float(mouth[0] + mouth[2]) / 2, float(eyes[1] + mouth[3]) / 2
