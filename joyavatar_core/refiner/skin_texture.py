"""The texture of a portrait's skin: what an edited face keeps where its shading changes. The definition is ours.

A face editor draws smooth skin. Pores, stubble and fine wrinkles of the portrait are added again, without its edges:
those of teeth, lips and eyes have other places in the edited face.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FINEST = 3 / 1024  # of the portrait's side: radius of what is blurred to tell texture from shading
NEAR = 3  # radii around a place over which the strength of its texture is taken
EDGE = 2.0  # times the usual strength: from there on nothing is texture; up to half of it, all is
LEAST = 0.5 / 127.5  # of a usual strength: drawings have none


def skin_texture(portrait: Tensor, face: Tensor) -> Tensor:
    """The texture in brightness of a portrait [1, 3, H, W] in [-1, 1], [1, 1, H, W].

    face: [1, 1, h, w], above 0.5 where the face is, whose median strength is the usual one.
    """
    radius = max(1, round(FINEST * min(portrait.shape[-2:])))
    light = portrait.mean(1, keepdim=True)
    fine = light - blurred(light, radius)
    strength = blurred(fine.abs(), NEAR * radius)
    inside = F.interpolate(face, portrait.shape[-2:], mode="bilinear", align_corners=False) > 0.5
    usual = strength.masked_fill(~inside, torch.nan).nanmedian().nan_to_num().clamp(min=LEAST)
    return fine * (EDGE - strength / usual).clamp(0, 1)


def blurred(picture: Tensor, radius: int) -> Tensor:
    """A picture [B, C, H, W] averaged twice over squares of 2 * radius + 1 pixels."""
    for _ in range(2):
        picture = F.pad(picture, 4 * [radius], mode="replicate")
        for size in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
            picture = F.avg_pool2d(picture, size, 1)
    return picture
