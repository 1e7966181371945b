"""Finds the person in a portrait: a small U-Net that says of each place whether it is of the person or behind.

The person is the one whose face is given. `joyavatar_core/training/person_training.py` trains the network. The
definition is this project's own; the coordinates among the inputs follow CoordConv (arXiv 1807.03247).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet import UNet
from ..weights import load_frozen
from .face_crop import FaceCrop

WEIGHTS = Path(__file__).parents[1] / "assets" / "person_finder.safetensors"
SIDE = 128  # pixels of the longer side of the picture that the network sees
CELL = 2  # pixels of a side of the map's cells
WIDTHS = (16, 24, 40, 64)  # channels at 1/2 ... 1/16 of the side
DIVISOR = CELL << (len(WIDTHS) - 1)  # of the sides of that picture
FARTHEST = 4.0  # halves of the face square's side; places are bent to stay below


class PersonFinder(UNet):
    """Pictures [B, 3, H, W] in [-1, 1] and places [B, 2, H / 2, W / 2] -> logits [B, 1, H / 2, W / 2].

    A place is where a cell of the map lies in the face's square, as `FaceCrop.placed` says. H and W are multiples of
    16. Logits are above 0 where the person is.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__(3 * CELL**2 + 2, widths)
        self.person = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, pictures: Tensor, places: Tensor) -> Tensor:
        places = FARTHEST * torch.tanh(places / FARTHEST)
        return self.person(self.features(torch.cat([F.pixel_unshuffle(pictures, CELL), places], dim=1)))

    @torch.no_grad()
    def find(self, picture: Tensor, crop: FaceCrop) -> Tensor:
        """The probability that each cell of a picture [3, H, W] in [-1, 1] is of the person with a face, [h, w].

        crop: the face, in the picture's pixels. The longer side of the map has SIDE / CELL cells.
        """
        height, width = picture.shape[-2:]
        sides = [max(1, round(SIDE * side / max(height, width) / DIVISOR)) * DIVISOR for side in (height, width)]
        small = F.interpolate(picture[None].cpu().float(), sides, mode="bilinear", antialias=True)
        places = crop.placed(sides[0] // CELL, sides[1] // CELL, height, width)
        return self(small, places.movedim(-1, 0)[None])[0, 0].sigmoid()


@lru_cache(maxsize=1)
def person_finder(weights: Path = WEIGHTS) -> PersonFinder:
    """The finder that comes with the project."""
    return load_frozen(PersonFinder(), weights, "person finder")
