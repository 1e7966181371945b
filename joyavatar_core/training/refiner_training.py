"""Training of the portrait refiner. Input: the avatar's frames of a clip. Target: the clip's frames at twice the side.

Visemes determine the lips. With visemes the target is the clip's own mouth, independent of the decoded frame. Without
visemes the decoded frame determines the mouth: in its region the coarse picture of the result must equal the frame's.
Everywhere else the target is the portrait's detail, moved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner.model import REACH, SCALE, RefinerNet, compose, warp
from .loop import Draw, LoopSettings, Trainer
from .refiner_samples import Pairs, Sample

MOUTH_WEIGHT, LOWER_WEIGHT, EYE_WEIGHT = 8.0, 3.0, 5.0  # against 1 elsewhere; lower: from the nose to below the chin
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
UNSURE = 0.06  # without visemes, a rollout's mouth this far from the truth (of -1 ... 1) counts a third
LIPS_MOVE = 0.5  # how much the moved portrait counts inside the mouth, against outside


def train_refiner(pairs: Pairs, settings: LoopSettings, start: dict[str, Tensor] | None = None) -> RefinerNet:
    """Train until the settings' limit, from scratch or from weights; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    net = RefinerNet()
    if start is not None:
        net.load_state_dict(start)
    trainer = Trainer(net.to(memory_format=torch.channels_last).train(), settings)
    trainer.run(lambda step, draw: step_losses(net, pairs, step, draw))
    net.load_state_dict(trainer.averaged())
    return net.eval().requires_grad_(False)


def step_losses(net: RefinerNet, pairs: Pairs, step: int, draw: Draw) -> dict[str, Tensor]:
    """Three steps with close-ups to one with whole pictures."""
    close = step % 4 != 0
    return refiner_losses(net, pairs.batch(draw, close), 0.5 if close else 1.0)


def refiner_losses(net: RefinerNet, sample: Sample, part: float = 1.0) -> dict[str, Tensor]:
    """All parts, and their weighted sum as `loss`. part: share of a picture's side that the samples show."""
    with torch.autocast("cpu", torch.bfloat16):
        predicted = net(sample.spoiled, sample.round_trip, sample.portrait, sample.condition, part)
    refined = compose(sample.spoiled, sample.portrait, predicted)
    truth, mouth = sample.truth, sample.mouth
    coarse, shown = (F.avg_pool2d(x, COARSE) for x in (refined, F.interpolate(sample.frame, scale_factor=SCALE)))
    inside = F.avg_pool2d(mouth, COARSE)
    without_visemes = 1 - sample.condition[:, :1, None, None]
    with torch.no_grad():  # how far a rollout's mouth is from the truth's
        apart = ((shown - F.avg_pool2d(truth, COARSE)).abs() * inside).sum((1, 2, 3), keepdim=True)
        apart = apart / (3 * inside.sum((1, 2, 3), keepdim=True) + 1e-6)
        unsure = without_visemes * (1 - sample.sure[:, None, None, None])
        trust = 1 / (1 + 2 * unsure * apart / UNSURE)
    weight = torch.maximum(1 + (EYE_WEIGHT - 1) * sample.eyes, 1 + (LOWER_WEIGHT - 1) * sample.lower)
    weight = torch.lerp(weight, MOUTH_WEIGHT * trust.square(), mouth)
    moves = (1 + (LOWER_WEIGHT - 1) * sample.lower) * (1 - mouth * (1 - LIPS_MOVE * (1 - without_visemes)))
    losses = {
        "pixel": ((refined - truth).abs() * weight).mean(),
        "gradient": sum((edges(refined, d) - edges(truth, d)).abs().mul(like(weight, d)).mean() for d in (-1, -2)),
        "strength": sum(strength_error(refined, truth, weight, d) for d in (-1, -2)),
        "warp": ((warp(sample.portrait, predicted.flow) - truth).abs() * moves).mean(),
        "lips": ((centred(coarse, inside) - centred(shown, inside)).abs() * inside * without_visemes).mean(),
        "trust": ((1 - predicted.mask) * (1 - mouth)).mean(),
        "smooth": sum(edges(predicted.flow, d).abs().mean() for d in (-1, -2)) * part / REACH,
    }
    scales = {
        "pixel": 1.0, "gradient": GRADIENT_WEIGHT, "strength": STRENGTH_WEIGHT, "warp": WARP_WEIGHT,
        "lips": LIPS_WEIGHT, "smooth": SMOOTH_WEIGHT, "trust": TRUST_WEIGHT,
    }  # fmt: skip
    with torch.no_grad():
        plain = F.interpolate(sample.spoiled, scale_factor=SCALE, mode="bicubic")
        beside = {
            "plain": (plain - truth).abs().mean(), "refined": (refined - truth).abs().mean(),
            "mouth": ((refined - truth).abs() * mouth).sum() / (3 * mouth.sum()).clamp(min=1),
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
