"""A patch discriminator (arXiv 1611.07004): tells true pictures of a face from edited ones, patch by patch.

Both networks are trained in one optimizer step: `generator_losses` takes the discriminator's weights as constants, and
`discriminator_loss` takes the pictures as constants.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

WIDTHS = (32, 64, 96)  # channels at 1/2, 1/4 and 1/8 of the side
SLOPE = 0.2
MODERATE = 0.02  # of the scores' squares: they do not grow without end where the discriminator is sure
CONTRAST = 4.0  # a picture is shown as its differences from the input and from itself without detail, times this
COARSE = 8  # pixels over which a picture without detail is averaged


class PatchDiscriminator(nn.Module):
    """A picture and its input [B, 3, S, S] each, and a condition [B, K] -> features, the last of them the scores.

    Scores [B, 1, S / 8, S / 8] are high for true pictures.
    """

    def __init__(self, condition: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.first = nn.Conv2d(9, widths[0], 4, 2, 1)
        self.condition = nn.Linear(condition, widths[0])
        self.rest = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in pairwise(widths))
        self.scores = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for layer in (self.first, *self.rest):  # no norms: they would hide how strong edges are
            nn.init.kaiming_normal_(layer.weight, SLOPE)
            nn.init.zeros_(layer.bias)

    def forward(self, picture: Tensor, given: Tensor, condition: Tensor) -> list[Tensor]:
        coarse = F.interpolate(F.avg_pool2d(picture, COARSE), picture.shape[-2:], mode="bilinear")
        seen = torch.cat([CONTRAST * (picture - given), CONTRAST * (picture - coarse), given], 1)
        x = self.first(seen) + self.condition(condition)[..., None, None]
        features = [F.leaky_relu(x, SLOPE)]
        for layer in self.rest:
            features.append(F.leaky_relu(layer(features[-1]), SLOPE))
        return [*features, self.scores(features[-1])]


class WithDiscriminator(nn.Module):
    """A network and the discriminator that judges it, trained in the same steps."""

    def __init__(self, network: nn.Module, condition: int) -> None:
        super().__init__()
        self.network, self.discriminator = network, PatchDiscriminator(condition)


def discriminator_loss(
    discriminator: PatchDiscriminator, true: Tensor, made: Tensor, weight: Tensor, *told: Tensor
) -> Tensor:
    """The discriminator's hinge loss.

    true, made: [B, 3, S, S]. weight: [B, 1, S, S], how much each place counts. told: the discriminator's other inputs.
    """
    high, low = discriminator(true, *told)[-1].float(), discriminator(made.detach(), *told)[-1].float()
    return weighted_mean(F.relu(1 - high) + F.relu(1 + low) + MODERATE * (high.square() + low.square()), weight)


def generator_losses(
    discriminator: PatchDiscriminator, true: Tensor, made: Tensor, weight: Tensor, *told: Tensor
) -> tuple[Tensor, Tensor]:
    """What the other network is to reduce: minus the scores, and the distance of its features from the true picture's.

    Arguments as in `discriminator_loss`.
    """
    held = {name: tensor.detach() for name, tensor in discriminator.named_parameters()}
    *features, scores = functional_call(discriminator, held, (made, *told))
    with torch.no_grad():
        *wanted, _ = discriminator(true, *told)
    distance = sum(
        weighted_mean((x - y).abs().float(), weight) / y.abs().mean() for x, y in zip(features, wanted, strict=True)
    )
    return -weighted_mean(scores.float(), weight), distance / len(wanted)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean of values [B, C, h, w], weighted by a map [B, 1, S, S]."""
    weight = F.adaptive_avg_pool2d(weight, values.shape[-2:]).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)
