"""Augmentation of the refiner's training pairs: errors of the stream, colour, and position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 6  # cells a side of the map that decides where a frame is blurred
CLOSEST = 1.6  # a picture's side in those of the part of it that is looked at
TURN, ZOOM, MOVE = 0.06, 0.06, 0.05  # of a portrait against its frame: radians, share, halves of a side


class Random:
    """Numbers from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def below(self, stop: int) -> int:
        """A whole number from 0 to stop - 1."""
        return int(torch.randint(stop, (), generator=self.generator))

    def choose(self, items: Sequence[int]) -> int:
        return items[self.below(len(items))]

    def chance(self, share: float) -> bool:
        """True in so many of all cases."""
        return self.uniform() < share

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def map(self, cells: int, size: tuple[int, int]) -> Tensor:
        """A smooth map [1, H, W], about 0 ... 1."""
        coarse = torch.rand(1, 1, cells, cells, generator=self.generator)
        return F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0]


def recolour(pictures: Sequence[Tensor], random: Random) -> list[Tensor]:
    """Another exposure, contrast, tint and saturation, the same for all pictures [3, H, W] in [-1, 1]."""
    if random.chance(0.3):
        return list(pictures)
    gamma, gain = math.exp(0.25 * random.normal(1).item()), 1 + 0.06 * random.normal(3, 1, 1)
    saturation = random.uniform(0.3, 1.3)

    def changed(picture: Tensor) -> Tensor:
        light = ((picture + 1) / 2).clamp(0, 1) ** gamma * gain
        grey = light.mean(0, keepdim=True)
        return (grey + saturation * (light - grey)).clamp(0, 1) * 2 - 1

    return [changed(picture) for picture in pictures]


def shade(pictures: Sequence[Tensor], random: Random) -> list[Tensor]:
    """A shadow from one side, in half of the cases, the same on all pictures [3, H, W] in [-1, 1]."""
    if random.chance(0.5):
        return list(pictures)
    angle, dark, middle = random.uniform(0, 2 * math.pi), random.uniform(0.25, 1), random.uniform(-0.7, 0.7)
    height, width = pictures[0].shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    lit = torch.sigmoid((x * math.cos(angle) + y * math.sin(angle) - middle) * random.uniform(1.5, 6))
    return [(picture + 1) * (dark + (1 - dark) * lit) - 1 for picture in pictures]


def shift(pictures: Sequence[Tensor], random: Random) -> list[Tensor]:
    """Turn, zoom and move pictures [3, H, W] of any sizes alike, half of the time."""
    if random.chance(0.5):
        return list(pictures)
    turn, zoom = random.uniform(-TURN, TURN), 1 + random.uniform(-ZOOM, ZOOM)
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    matrix = torch.tensor([[[cos, -sin, random.uniform(-MOVE, MOVE)], [sin, cos, random.uniform(-MOVE, MOVE)]]])

    def moved(picture: Tensor) -> Tensor:
        grid = F.affine_grid(matrix, [1, *picture.shape], align_corners=False)
        return F.grid_sample(picture[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0]

    return [moved(picture).clamp(-1, 1) for picture in pictures]


def zoom(pictures: Sequence[Tensor], centre: tuple[float, float], random: Random) -> list[Tensor]:
    """Crop pictures [C, H, W] of any sizes to the same part, in half of the cases.

    centre: (x, y) in -1 ... 1 of what is to stay in view.
    """
    if random.chance(0.5):
        return list(pictures)
    part = 1 / random.uniform(1, CLOSEST)
    left, top = ((1 - part) * max(-1.0, min(1.0, c + random.uniform(-0.3, 0.3))) for c in centre)
    matrix = torch.tensor([[[part, 0, left], [0, part, top]]])

    def nearer(picture: Tensor) -> Tensor:
        grid = F.affine_grid(matrix, [1, *picture.shape], align_corners=False)
        return F.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0]

    return [nearer(picture) for picture in pictures]


def other_mouth(frame: Tensor, other: Tensor, mouth: Tensor, random: Random) -> Tensor:
    """A frame [3, H, W] whose mouth says little or something else, in all but 6 % of the cases: another picture's mouth
    more or less in its place, soft or not. mouth [1, H, W]: 1 inside.
    """
    if random.chance(0.06):
        return frame
    region = F.max_pool2d(mouth[None], 5, 1, 2) if random.chance(0.5) else mouth[None]
    region = F.avg_pool2d(region, 7, 1, 3, count_include_pad=False)[0]
    spoiled = torch.lerp(frame, other, random.uniform(0.6, 1.0) if random.chance(0.6) else 1.0)
    if random.chance(0.5):
        for _ in range(1 + random.below(4)):
            spoiled = F.avg_pool2d(spoiled[None], 3, 1, 1, count_include_pad=False)[0]
    spoiled = spoiled + 0.04 * random.uniform() * random.normal(*frame.shape)
    return torch.lerp(frame, spoiled, region).clamp(-1, 1)


def wipe(frame: Tensor, eyes: Tensor, random: Random) -> Tensor:
    """Replace the eyes by the surrounding colours, as in smeared streams, in a quarter of the cases."""
    if random.chance(0.75):
        return frame
    around = F.avg_pool2d(frame[None], 15, 1, 7, count_include_pad=False)
    around = F.avg_pool2d(around, 9, 1, 4, count_include_pad=False)[0]
    where = F.avg_pool2d(F.max_pool2d(eyes[None], 5, 1, 2), 7, 1, 3)[0] * (1.6 * random.map(4, frame.shape[-2:])).clamp(
        0, 1
    )
    return torch.lerp(frame, around, where * random.uniform(0.3, 1.0))


def smear(frame: Tensor, mouth: Tensor, eyes: Tensor, random: Random, mild: bool) -> Tensor:
    """A frame [3, H, W] with a stream's mistakes: blur in places, eyes above all, tint, specks; the mouth is spared.

    mouth, eyes [1, H, W]: 1 inside. mild: for frames that have such mistakes already.
    """
    if random.chance(0.4 if mild else 0.15):
        return frame
    frame = wipe(frame, eyes, random)
    size, smeared = frame.shape[-2:], frame
    kernel = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = (kernel[:, None] * kernel).expand(3, 1, 5, 5)
    for _ in range(1 + random.below(4 if mild else 8)):
        smeared = F.conv2d(F.pad(smeared[None], (2, 2, 2, 2), mode="replicate"), kernel, groups=3)[0]
    where = random.map(GRID, size) + random.uniform(0, 0.8) * eyes
    where = ((where - random.uniform(0.3, 1.0)) * 8).sigmoid()
    bend = 0.03 * random.uniform() * F.interpolate(random.normal(1, 2, 8, 8), size, mode="bicubic", align_corners=False)
    spared = F.avg_pool2d(mouth[None], 9, 1, 4, count_include_pad=False)[0]
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, *frame.shape], align_corners=False)
    place = grid + ((where * (1 - spared))[None] * bend).permute(0, 2, 3, 1)
    smeared = F.grid_sample(smeared[None], place, padding_mode="border", align_corners=False)[0]
    tint = 0.05 * random.normal(3, 1, 1) + 0.04 * F.interpolate(random.normal(1, 3, 4, 4), size, mode="bicubic")[0]
    specks = 0.06 * random.uniform() * random.normal(3, *size) * random.map(GRID, size)
    kept = torch.lerp(smeared, frame, (1 - where) + where * spared)
    return (kept * (1 + 0.05 * random.normal(3, 1, 1)) + random.uniform() * tint + specks * (1 - spared)).clamp(-1, 1)
