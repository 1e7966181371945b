"""Finds faces in a picture with a small convolutional network, trained on synthetic people only.

The network looks at the picture at several sizes and finds, in each, faces of about 16 to 64 pixels, in the way of
CenterNet (arXiv 1904.07850): a map says where a face's centre is, other maps say how large it is and how it is tilted.
`joyavatar_core/training/locator_training.py` trains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..weights import load_frozen

WEIGHTS = Path(__file__).parents[1] / "assets" / "face_locator.safetensors"
STRIDE = 8  # pixels of the picture a cell of the maps
CENTRE_DEPTH = 0.1  # a face's centre lies this far below the eyes, in distances between eyes and chin
HEIGHT = 1.8  # a face's size in the same unit
USUAL_SIZE = 32.0  # pixels: a face whose logarithmic size is 0
SIZES = (16.0, 64.0)  # pixels: faces that the network answers for
LONG_SIDES = (32, 48, 72, 108, 162, 243, 364)  # pixels: the sizes that a picture is looked at in
THRESHOLD = 0.35  # least score of a face
SUSPECTED = 0.2  # least score of a find at one of these sizes
LIKELY = 0.62  # least score of a find that counts at once; others are looked at again in squares around them
CLOSE_UPS = (1.5, 2.0, 2.6)  # sides of these squares, in sizes of the face
CONFIRMED = 0.6  # least median of a find's scores in its squares
# A find of such a size, in shorter sides of the picture, and at such a place, in widths and heights, always counts.
PORTRAIT_SIZES, PORTRAIT_X, PORTRAIT_Y = (0.4, 1.1), (0.35, 0.65), (0.25, 0.7)
SURE = 0.6  # a further face counts if its score is at least this share of the best face's
OVERLAP = 0.6  # two faces' centres are further apart, across or down, than this share of the larger's size
ALIKE = 1.5  # sizes of finds that agree differ by less than this factor
MAPS = 5  # score, centre x and y, size, roll
WIDTHS = 12, 24, 48  # channels at a half, a quarter and an eighth of the picture's size
DILATIONS = 1, 2, 1, 2, 1


@dataclass(frozen=True)
class Face:
    """A face in a picture's pixels: centre (just below the eyes), size (hairline to chin, 1.8 times eyes to chin),
    roll in radians (clockwise), score 0 ... 1."""

    x: float
    y: float
    size: float
    roll: float
    score: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the upright square around it."""
        half = self.size / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


class FaceLocator(nn.Module):
    """Pictures [B, 3, H, W] in -1 ... 1 -> maps [B, 5, ceil(H/8), ceil(W/8)]: score (a logit), centre's offset in
    cells, logarithm of the size over USUAL_SIZE, roll in radians."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.Identity) -> None:
        """norm: what stands behind every convolution, given its channels; in training, batch normalisation."""
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
            layer = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation)
            return nn.Sequential(layer, norm(outputs), nn.ReLU())

        thin, half, width = WIDTHS
        self.stem = nn.Sequential(conv(3, thin, 2), conv(thin, half, 2), conv(half, half), conv(half, width, 2))
        self.layers = nn.ModuleList(conv(width, width, dilation=dilation) for dilation in DILATIONS)
        self.head = nn.Conv2d(width, MAPS, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.stem(pictures)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)

    @torch.no_grad()
    def find(self, picture: Image.Image) -> list[Face]:
        """All faces of an RGB picture, the largest first.

        A face shows at two or three of the sizes that the picture is looked at in; what shows at one alone is doubtful.
        A find with a low score is looked at again, closer. There an animal's ear or a lamp has a low score too. A small
        face in a large picture has a higher one. A find as large and as central as a portrait's face always counts.
        """
        faces = [face for face in self._finds(picture) if self._counts(face, picture)]
        surest = max((face.score for face in faces), default=0.0)
        return sorted((face for face in faces if face.score >= SURE * surest), key=lambda face: -face.size)

    def _finds(self, picture: Image.Image) -> list[Face]:
        return agreed([self._at(picture, side) for side in LONG_SIDES])

    def _counts(self, face: Face, picture: Image.Image) -> bool:
        if face.score >= LIKELY or placed_as_in_portraits(face, picture.size):
            return True
        return float(np.median([self._close_up(picture, face, side) for side in CLOSE_UPS])) >= CONFIRMED

    def _close_up(self, picture: Image.Image, face: Face, side: float) -> float:
        """The best score of a face in the middle of the square around a find; 0 where none is there."""
        left, top = (round(at - side * face.size / 2) for at in (face.x, face.y))
        width = round(side * face.size)
        close_up = picture.crop((left, top, left + width, top + width))
        here = replace(face, x=face.x - left, y=face.y - top)
        return max((other.score for other in self._finds(close_up) if _agree(here, other)), default=0.0)

    def _at(self, picture: Image.Image, long_side: int) -> list[Face]:
        scale = long_side / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        small = picture.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1
        margin = STRIDE * 2  # a face may be cut off by the picture's edge
        right, bottom = (-side % STRIDE for side in size)
        padded = F.pad(pixels, (margin, margin + right, margin, margin + bottom), mode="replicate")
        maps = self(padded)[0]
        return [
            Face((x - margin) / scale, (y - margin) / scale, pixels_high / scale, roll, score)
            for x, y, pixels_high, roll, score in peaks(maps)
            if SIZES[0] <= pixels_high <= SIZES[1]
        ]


def placed_as_in_portraits(face: Face, picture: tuple[int, int]) -> bool:
    """Whether a face is as large, and as near to the middle of a picture (width, height), as a portrait's."""
    width, height = picture
    placed = ((face.size / min(picture), PORTRAIT_SIZES), (face.x / width, PORTRAIT_X), (face.y / height, PORTRAIT_Y))
    return all(low <= value <= high for value, (low, high) in placed)


def peaks(maps: Tensor, threshold: float = SUSPECTED) -> list[tuple[float, float, float, float, float]]:
    """x, y and size in pixels, roll and score of each local maximum of maps [5, h, w]."""
    score = maps[0].sigmoid()
    best = F.max_pool2d(score[None], 3, 1, 1)[0]
    rows, columns = torch.nonzero((score == best) & (score >= threshold), as_tuple=True)
    found = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        _, dx, dy, size, roll = maps[:, row, column].tolist()
        x, y = (column + 0.5 + dx) * STRIDE, (row + 0.5 + dy) * STRIDE
        found.append((x, y, USUAL_SIZE * math.exp(min(size, 3.0)), roll, float(score[row, column])))
    return found


def agreed(finds: Sequence[Sequence[Face]]) -> list[Face]:
    """One face for all finds that are of the same one, the surest first; finds: at each size of the picture.

    Its score is the mean of a find's and of the best one at another size that agrees with it (0 where none does), and
    its place the mean of both.
    """
    candidates = []
    for size, found in enumerate(finds):
        elsewhere = [face for k, at_size in enumerate(finds) if k != size for face in at_size]
        for face in found:
            seconds = [other for other in elsewhere if _agree(face, other)]
            pair = [face, *sorted(seconds, key=lambda other: -other.score)[:1]]
            x, y, side, roll = np.mean([(f.x, f.y, f.size, f.roll) for f in pair], axis=0).tolist()
            candidates.append(Face(x, y, side, roll, sum(f.score for f in pair) / 2))
    faces: list[Face] = []
    for face in sorted(candidates, key=lambda face: -face.score):
        if face.score >= THRESHOLD and not any(_overlap(face, better) for better in faces):
            faces.append(face)
    return faces


def _agree(a: Face, b: Face) -> bool:
    """Whether two finds are of one face: alike in place and size."""
    larger, smaller = max(a.size, b.size), min(a.size, b.size)
    return larger < ALIKE * smaller and math.hypot(a.x - b.x, a.y - b.y) < (ALIKE - 1) * larger


def _overlap(a: Face, b: Face) -> bool:
    """Whether two finds cannot both be faces."""
    return max(abs(a.x - b.x), abs(a.y - b.y)) < OVERLAP * max(a.size, b.size)


@lru_cache(maxsize=1)
def face_locator(weights: Path = WEIGHTS) -> FaceLocator:
    """The locator that comes with the project."""
    return load_frozen(FaceLocator(), weights, "face locator")
