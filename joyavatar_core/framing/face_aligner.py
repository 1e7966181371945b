"""Puts a face's square in its place more precisely than the face locator, with a small convolutional network.

The locator has to find faces of any size anywhere. The aligner sees a square around one face and says how far the
square is from where the eyes and the chin put it. `joyavatar_core/training/aligner_training.py` trains it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ..weights import load_frozen
from .face_crop import FaceCrop

WEIGHTS = Path(__file__).parents[1] / "assets" / "face_aligner.safetensors"
SIDE = 64  # pixels of the square that the network sees
WIDER = 1.4  # the square that it sees, in sides of the face's own
WIDTHS = (24, 32, 48, 64)  # channels at 1/2 ... 1/16 of the side
HIDDEN = 64
STEPS = 3  # times that a square is corrected; each correction starts from a better placed square
FARTHEST, FACTORS = 0.5, (0.6, 1.6)  # the farthest correction, in sides of the square, and factors of its side


class FaceAligner(nn.Module):
    """Squares [B, 3, 64, 64] in -1 ... 1 -> corrections [B, 4]: x and y in halves of the square's side, the logarithm
    of the side's factor, and the roll in radians.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((3, *WIDTHS)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1), nn.SiLU()]
        cells = (SIDE >> len(WIDTHS)) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells * WIDTHS[-1], HIDDEN), nn.SiLU())
        self.correction = nn.Linear(HIDDEN, 4)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, squares: Tensor) -> Tensor:
        return self.correction(self.layers(squares))

    @torch.no_grad()
    def align(self, picture: Tensor, crop: FaceCrop) -> FaceCrop:
        """The crop of a face in a picture [3, H, W] in [-1, 1], corrected; as it was if the correction is too large."""
        found, pictures = crop, picture[None].cpu().float()
        for _ in range(STEPS):
            seen = wider(found)
            found = corrected(seen, self(seen.cut(pictures, SIDE))[0])
            away, factor = math.hypot(found.x - crop.x, found.y - crop.y), found.side / crop.side
            if away > FARTHEST * crop.side or not FACTORS[0] < factor < FACTORS[1]:
                return crop
        return found


def wider(crop: FaceCrop) -> FaceCrop:
    """What the network sees of a crop."""
    return FaceCrop(crop.x, crop.y, WIDER * crop.side, crop.roll)


def corrected(seen: FaceCrop, correction: Tensor) -> FaceCrop:
    """The face's own square, by a correction [4] of the square that the network sees."""
    across, down, size, turn = correction.tolist()
    cos, sin, half = math.cos(seen.roll), math.sin(seen.roll), seen.side / 2
    x, y = seen.x + half * (cos * across - sin * down), seen.y + half * (sin * across + cos * down)
    return FaceCrop(x, y, seen.side / WIDER * math.exp(size), seen.roll + turn)


def correction_of(seen: FaceCrop, crop: FaceCrop) -> Tensor:
    """The correction [4] that leads from a square that the network sees to a face's own: undoes `corrected`."""
    cos, sin, half = math.cos(seen.roll), math.sin(seen.roll), seen.side / 2
    x, y = (crop.x - seen.x) / half, (crop.y - seen.y) / half
    size = math.log(WIDER * crop.side / seen.side)
    return torch.tensor([cos * x + sin * y, cos * y - sin * x, size, crop.roll - seen.roll])


@lru_cache(maxsize=1)
def face_aligner(weights: Path = WEIGHTS) -> FaceAligner:
    """The aligner that comes with the project."""
    return load_frozen(FaceAligner(), weights, "face aligner")
