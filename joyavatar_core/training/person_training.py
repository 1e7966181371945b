"""Trains the person finder on people cut out and put on canvases."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from ..framing.face_locator import Face
from ..framing.person_finder import CELL, PersonFinder
from .face_canvases import SIDE, Cutouts, portraits
from .locator_training import backgrounds
from .loop import Draw, LoopSettings, Trainer

BATCH, DRAWN = 16, 0.3  # canvases, and the share of them whose people are drawn
OFF = (0.12, 0.1, 0.1)  # deviations of the told face from the true one: shares of its size, its logarithm, radians


def person_loss(finder: PersonFinder, pictures: Tensor, faces: Tensor, opacity: Tensor) -> dict[str, Tensor]:
    """The binary cross-entropy, and the share of cells that are wrong.

    pictures [B, 3, S, S] in [-1, 1]; faces [B, 4], as in `Canvases`; opacity [B, 1, S, S]: the person's.
    """
    cells = pictures.shape[-1] // CELL
    wanted = F.avg_pool2d(opacity, CELL)
    crops = (FaceCrop.of_face(Face(*face, score=1.0)) for face in faces.tolist())
    places = torch.stack([crop.placed(cells, cells, SIDE, SIDE).movedim(-1, 0) for crop in crops])
    logits = finder(pictures, places)
    with torch.no_grad():
        wrong = ((logits > 0) != (wanted > 0.5)).float().mean()
    return {"loss": F.binary_cross_entropy_with_logits(logits, wanted), "wrong": wrong}


def train_person_finder(
    drawn: Cutouts,
    rendered: Cutouts,
    settings: LoopSettings,
    start: dict[str, Tensor] | None = None,
    batch: int = BATCH,
) -> PersonFinder:
    """Train until the settings' limit, from scratch or from weights; the averaged network."""
    torch.manual_seed(settings.seed)
    finder, scenes = PersonFinder(), backgrounds()
    if start is not None:
        finder.load_state_dict(start)
    trainer = Trainer(finder, settings)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        (generator, *_) = draw(batch)
        count = round(DRAWN * batch)
        parts = portraits(drawn, scenes, count, generator), portraits(rendered, scenes, batch - count, generator)
        pictures, faces, opacity = (torch.cat(both) for both in zip(*parts, strict=True))
        off = torch.randn(len(faces), 4, generator=generator)
        size = faces[:, 2:3]
        faces = torch.cat([
            faces[:, :2] + OFF[0] * size * off[:, :2], size * torch.exp(OFF[1] * off[:, 2:3]),
            faces[:, 3:] + OFF[2] * off[:, 3:],
        ], dim=1)  # fmt: skip
        return person_loss(finder, pictures, faces, opacity)

    trainer.run(step_loss)
    finder.load_state_dict(trainer.averaged())
    return finder.eval().requires_grad_(False)
