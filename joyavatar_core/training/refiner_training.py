"""Training the portrait refiner: what the avatar makes of a clip in, the clip's own frames at twice the side out.

The decoded frame decides the lips: in the mouth's region the coarse picture of the result has to be the frame's, while
everywhere else the portrait's detail, moved, is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner.model import REACH, SCALE, RefinerNet, compose, warp
from ..synthetic.dataset import load_pictures
from .loop import Draw, LoopSettings, Trainer
from .losses import box_weight
from .refiner_alignment import moved
from .refiner_augment import Random, recolour, shift, smear, zoom

MOUTH_WEIGHT, EYE_WEIGHT = 8.0, 5.0
# Of the loss's parts. Where blur is the least error a refiner would blur: edges' strength counts by itself, and so does
# every place outside the mouth where the portrait is not used (TRUST).
GRADIENT_WEIGHT, STRENGTH_WEIGHT, WARP_WEIGHT, LIPS_WEIGHT, SMOOTH_WEIGHT, TRUST_WEIGHT = (
    0.5,
    1.0,
    0.4,
    20.0,
    0.05,
    0.03,
)
COARSE = 4  # pixels of the refined picture that lips are compared over
CELL = 8  # pixels over which strengths of edges are compared
APART = 1.5  # errors of the round trip: a rollout's frame farther from the truth than this is not used
UNSURE = 0.06  # a rollout's mouth so far from the truth, of the range -1 ... 1, counts a third in the pixel losses


@dataclass(frozen=True)
class RefinerRecipe:
    """batch: samples a step. followed: share of them that are self-rollouts, the others are round trips.

    drawn: share of drawn people, where there are clips of both kinds.
    """

    batch: int = 8
    followed: float = 0.5
    drawn: float = 0.2


class Sample(NamedTuple):
    """Pictures in [-1, 1]: frames and round trips [B, 3, S, S], truth and portraits [B, 3, 2S, 2S].

    spoiled: the frames that the refiner gets, `frame` with more mistakes. mouth, eyes [B, 1, 2S, 2S]: 1 inside their
    boxes, else 0. sure [B]: 1 for round trips, 0 for rollouts, whose mouths are not quite the truth's.
    """

    frame: Tensor
    spoiled: Tensor
    round_trip: Tensor
    portrait: Tensor
    truth: Tensor
    mouth: Tensor
    eyes: Tensor
    sure: Tensor


class Pairs:
    """Clips and their pairs on disk; a sample is read when it is drawn.

    clips, pairs: files of the same names, of `write_dataset` and `make_pairs`.
    """

    def __init__(self, clips: Sequence[Path], pairs: Sequence[Path], recipe: RefinerRecipe) -> None:
        from safetensors import safe_open

        self.recipe = recipe
        self.clips = [
            (path, safe_open(path, "np"), safe_open(pair, "np")) for path, pair in zip(clips, pairs, strict=True)
        ]
        drawn = [k for k, path in enumerate(clips) if path.stem.endswith("-drawn")]
        others = [k for k in range(len(clips)) if k not in {*drawn}]
        self.kinds = [drawn, others]

    def sample(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One sample, without the batch's axis."""
        random = Random(generator)
        drawn, others = self.kinds
        kind = drawn if not others or (drawn and random.chance(self.recipe.drawn)) else others
        path, clip, pair = self.clips[random.choose(kind)]
        frame, t, flow = self._frame(pair, random)
        followed = flow is not None
        round_trip, portrait = self._portrait(path, pair, random)
        frame, round_trip, portrait, truth = (
            as_picture(picture) for picture in (frame, round_trip, portrait, load_pictures(path, "frames", t, t + 1)[0])
        )
        side = truth.shape[-1]
        mouth = box_weight(torch.from_numpy(clip.get_slice("box")[t]), side, side, 2.0)[None] - 1
        eyes = box_weight(torch.from_numpy(clip.get_slice("eyes")[t]), side, side, 2.0).amax(0, keepdim=True) - 1
        if followed:
            truth, mouth, eyes = (moved(x[None], flow[None])[0] for x in (truth, mouth, eyes))
        box = clip.get_slice("box")[t] / side * 2 - 1
        middle = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2 - 0.2)
        shown = zoom((frame, round_trip, portrait, truth, mouth, eyes), middle, random)
        frame, round_trip, portrait, truth, mouth, eyes = shown
        if random.chance(0.5):
            frame, round_trip, portrait, truth, mouth, eyes = (
                x.flip(-1) for x in (frame, round_trip, portrait, truth, mouth, eyes)
            )
        frame, round_trip, portrait, truth = recolour((frame, round_trip, portrait, truth), random)
        round_trip, portrait = shift((round_trip, portrait), random)
        spoiled = smear(frame, F.avg_pool2d(mouth, SCALE), F.avg_pool2d(eyes, SCALE), random, mild=followed)
        return frame, spoiled, round_trip, portrait, truth, mouth, eyes, torch.tensor(float(not followed))

    def _frame(self, pair: object, random: Random) -> tuple[np.ndarray, int, Tensor | None]:
        """(frame [S, S, 3], the clip's frame that it shows, the flow to its pose; None for a round trip)."""
        near = ()
        if random.chance(self.recipe.followed):
            near = np.flatnonzero(pair.get_tensor("apart") < APART)
        if not len(near):
            t = random.below(pair.get_slice("round_trip").get_shape()[0])
            return pair.get_slice("round_trip")[t], t, None
        which = int(near[random.below(len(near))])
        flow = torch.from_numpy(pair.get_slice("flow")[which])
        return pair.get_slice("followed")[which], int(pair.get_slice("shows")[which]), flow

    def _portrait(self, path: Path, pair: object, random: Random) -> tuple[np.ndarray, np.ndarray]:
        """Of any moment: (through the autoencoder [S, S, 3], itself [2S, 2S, 3])."""
        chosen = pair.get_tensor("chosen")
        still = random.below(pair.get_slice("portraits").get_shape()[0])
        given = pair.get_slice("portraits").get_shape()[0] - len(chosen)
        if still < given:
            return pair.get_slice("portraits")[still], load_pictures(path, "portraits", still, still + 1)[0]
        t = int(chosen[still - given])
        return pair.get_slice("portraits")[still], load_pictures(path, "frames", t, t + 1)[0]

    def batch(self, draw: Draw) -> Sample:
        """A step's samples."""
        return Sample(*(torch.stack(part) for part in zip(*map(self.sample, draw(self.recipe.batch)), strict=True)))


def train_refiner(pairs: Pairs, settings: LoopSettings, start: dict[str, Tensor] | None = None) -> RefinerNet:
    """Train until the settings' limit, from scratch or from weights; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    net = RefinerNet()
    if start is not None:
        net.load_state_dict(start)
    trainer = Trainer(net.to(memory_format=torch.channels_last).train(), settings)
    trainer.run(lambda step, draw: refiner_losses(net, pairs.batch(draw)))
    net.load_state_dict(trainer.averaged())
    return net.eval().requires_grad_(False)


def refiner_losses(net: RefinerNet, sample: Sample) -> dict[str, Tensor]:
    """All parts, and their weighted sum as `loss`."""
    with torch.autocast("cpu", torch.bfloat16):
        predicted = net(sample.spoiled, sample.round_trip, sample.portrait)
    refined = compose(sample.spoiled, sample.portrait, predicted)
    truth, mouth = sample.truth, sample.mouth
    coarse, heard = (F.avg_pool2d(x, COARSE) for x in (refined, F.interpolate(sample.frame, scale_factor=SCALE)))
    inside = F.avg_pool2d(mouth, COARSE)
    with torch.no_grad():  # how far a rollout's mouth is from the truth's
        apart = ((heard - F.avg_pool2d(truth, COARSE)).abs() * inside).sum((1, 2, 3), keepdim=True)
        apart = apart / (3 * inside.sum((1, 2, 3), keepdim=True) + 1e-6)
        trust = torch.where(sample.sure[:, None, None, None] > 0, 1.0, 1 / (1 + 2 * apart / UNSURE))
    weight = 1 + (EYE_WEIGHT - 1) * sample.eyes
    weight = torch.lerp(weight, MOUTH_WEIGHT * trust.square(), mouth)
    losses = {
        "pixel": ((refined - truth).abs() * weight).mean(),
        "gradient": sum((edges(refined, d) - edges(truth, d)).abs().mul(like(weight, d)).mean() for d in (-1, -2)),
        "strength": sum(strength_error(refined, truth, weight, d) for d in (-1, -2)),
        "warp": ((warp(sample.portrait, predicted.flow) - truth).abs() * (1 - mouth)).mean(),
        "lips": ((centred(coarse, inside) - centred(heard, inside)).abs() * inside).mean(),
        "trust": ((1 - predicted.mask) * (1 - mouth)).mean(),
        "smooth": sum(edges(predicted.flow, d).abs().mean() for d in (-1, -2)) / REACH,
    }
    scales = {
        "pixel": 1.0, "gradient": GRADIENT_WEIGHT, "strength": STRENGTH_WEIGHT, "warp": WARP_WEIGHT,
        "lips": LIPS_WEIGHT, "smooth": SMOOTH_WEIGHT, "trust": TRUST_WEIGHT,
    }  # fmt: skip
    with torch.no_grad():
        plain = F.interpolate(sample.spoiled, scale_factor=SCALE, mode="bicubic")
        beside = {
            "plain": (plain - truth).abs().mean(), "refined": (refined - truth).abs().mean(),
            "mask_mouth": (predicted.mask * mouth).sum() / mouth.sum().clamp(min=1), "mask": predicted.mask.mean(),
        }  # fmt: skip
    return losses | beside | {"loss": sum(scales[name] * value for name, value in losses.items())}


def centred(picture: Tensor, inside: Tensor) -> Tensor:
    """A picture less its mean inside a region: the colour as a whole does not count."""
    mean = (picture * inside).sum((2, 3), keepdim=True) / (inside.sum((2, 3), keepdim=True) + 1e-6)
    return picture - mean


def edges(picture: Tensor, dim: int) -> Tensor:
    """Differences of neighbours along an axis."""
    return picture.diff(dim=dim)


def like(weight: Tensor, dim: int) -> Tensor:
    """The weight of differences along an axis: that of the later of the two."""
    return weight.narrow(dim, 1, weight.shape[dim] - 1)


def strength_error(picture: Tensor, truth: Tensor, weight: Tensor, dim: int) -> Tensor:
    """How much stronger or weaker edges are, cell by cell, wherever in the cell they are: blur costs."""
    ours, theirs, weight = (
        F.avg_pool2d(x, CELL) for x in (edges(picture, dim).abs(), edges(truth, dim).abs(), like(weight, dim))
    )
    return ((ours - theirs).abs() * weight).mean()


def as_picture(pixels: object) -> Tensor:
    """uint8 [H, W, 3] -> [3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)
