"""Trains the face aligner: squares around faces of clips, moved, turned and of other sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.stream_pictures import as_pictures
from ..framing.face_aligner import SIDE, FaceAligner, correction_of, wider
from ..framing.face_crop import FaceCrop
from ..synthetic.cutouts import face_points
from ..synthetic.dataset import clip_frames, load_clip
from ..synthetic.labels import FaceLabels
from .loop import Draw, LoopSettings, Trainer
from .people import People
from .refiner_augment import Random, recolour

PICTURES, SQUARES = 24, 4  # of a step, and squares of each picture
DRAWN = 0.3  # share of drawn people
MOVE, ZOOM, TURN = 0.22, 0.22, 0.2  # deviations: halves of the side, logarithm of the side, radians
MOST = 2.0  # times the deviation
PRECISE = 0.5  # share of squares that are off by a quarter of this: what the last correction sees
WEIGHTS = (1.0, 1.0, 1.0, 0.5)  # of x, y, size and roll


class FaceSquares:
    """Squares around the faces of clips on disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.people = People(paths, DRAWN)

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Squares [SQUARES, 3, 64, 64] of one picture and their corrections [SQUARES, 4]."""
        random = Random(generator)
        picture, crop = labelled_frame(self.people.choose(random), random)
        if random.chance(0.5):
            picture = picture.flip(-1)
            crop = FaceCrop(picture.shape[-1] - crop.x, crop.y, crop.side, -crop.roll)
        picture = recolour((picture[0],), random)[0][None]
        squares, corrections = [], []
        for _ in range(SQUARES):
            seen = wider(moved(crop, random))
            squares.append(seen.cut(picture, SIDE)[0])
            corrections.append(correction_of(seen, crop))
        squares = torch.stack(squares)
        if random.chance(0.3):
            squares = F.avg_pool2d(squares, 3, 1, 1, count_include_pad=False)
        squares = squares + random.uniform(0, 0.1) * random.normal(*squares.shape)
        return squares, torch.stack(corrections)

    def batch(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Squares [B, 3, 64, 64] and corrections [B, 4]."""
        return tuple(torch.cat(part) for part in zip(*map(self.sample, generators), strict=True))


def labelled_frame(path: Path, random: Random) -> tuple[Tensor, FaceCrop]:
    """One frame of a clip, [1, 3, H, W] in [-1, 1], and the square of its face."""
    clip = load_clip(path, random.below(clip_frames(path)), 1)
    labels = FaceLabels(*clip.mouth[0], clip.box[0], clip.eyes[0], clip.lids[0], clip.face[0], clip.pose[0])
    return as_pictures(clip.frames), FaceCrop.of_points(*face_points(labels))


def moved(crop: FaceCrop, random: Random) -> FaceCrop:
    """A crop that is off as the face locator's may be."""
    away = random.normal(4).clamp(-MOST, MOST) * (0.25 if random.chance(PRECISE) else 1.0)
    x, y, size, turn = (away * torch.tensor([MOVE, MOVE, ZOOM, TURN])).tolist()
    half = crop.side / 2
    return FaceCrop(crop.x + half * x, crop.y + half * y, crop.side * math.exp(size), crop.roll + turn)


def aligner_loss(aligner: FaceAligner, squares: Tensor, corrections: Tensor) -> dict[str, Tensor]:
    """The mean error, and each part's, in the units of the corrections."""
    errors = (aligner(squares) - corrections).abs().mean(0)
    names = ("x", "y", "size", "roll")
    return {"loss": (errors * torch.tensor(WEIGHTS)).sum()} | dict(zip(names, errors.detach(), strict=True))


def train_aligner(squares: FaceSquares, settings: LoopSettings, batch: int = PICTURES) -> FaceAligner:
    """Train until the settings' limit; the averaged network."""
    torch.manual_seed(settings.seed)
    aligner = FaceAligner()
    trainer = Trainer(aligner, settings)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        return aligner_loss(aligner, *squares.batch(draw(batch)))

    trainer.run(step_loss)
    aligner.load_state_dict(trainer.averaged())
    return aligner.eval().requires_grad_(False)


def aligner_errors(aligner: FaceAligner, paths: Sequence[Path], seed: int = 0) -> dict[str, float]:
    """Medians over clips of how far squares that are off by as much as in training are off before and after.

    centre: in halves of the side. size: in shares. roll: in radians.
    """
    random, found = Random(torch.Generator().manual_seed(seed)), []
    for path in paths:
        picture, true = labelled_frame(path, random)
        given = moved(true, random)
        for crop in (given, aligner.align(picture[0], given)):
            found.append(2 * math.hypot(crop.x - true.x, crop.y - true.y) / true.side)
            found += [abs(crop.side / true.side - 1), abs(crop.roll - true.roll)]
    names = ("centre before", "size before", "roll before", "centre", "size", "roll")
    medians = np.median(np.reshape(found, (-1, len(names))), axis=0)
    return dict(zip(names, map(float, medians), strict=True))
