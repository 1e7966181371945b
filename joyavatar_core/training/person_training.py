"""Trains the person finder on people cut out and put on canvases."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from ..framing.face_locator import Face
from ..framing.person_finder import CELL, PersonFinder
from .face_canvases import Cutouts, portraits
from .locator_training import backgrounds
from .loop import Draw, LoopSettings, Trainer

BATCH, DRAWN = 16, 0.3  # canvases, and the share of them whose people are drawn
OFF = (0.12, 0.1, 0.1)  # deviations of the given face from the true one: of its place in sizes, log size, radians


def person_loss(finder: PersonFinder, pictures: Tensor, faces: Tensor, opacity: Tensor) -> dict[str, Tensor]:
    """The binary cross-entropy, and the share of cells that are wrong.

    pictures [B, 3, S, S] in [-1, 1]; faces [B, 4], as in `Canvases`; opacity [B, 1, S, S]: the person's.
    """
    cells = pictures.shape[-1] // CELL
    wanted = F.avg_pool2d(opacity, CELL)
    crops = (FaceCrop.of_face(Face(*face, score=1.0)) for face in faces.tolist())
    places = torch.stack([crop.placed(cells, cells, *pictures.shape[-2:]).movedim(-1, 0) for crop in crops])
    logits = finder(pictures, places)
    with torch.no_grad():
        wrong = ((logits > 0) != (wanted > 0.5)).float().mean()
    return {"loss": F.binary_cross_entropy_with_logits(logits, wanted), "wrong": wrong}


def misplaced(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Faces [B, 4] where a face locator could have found them."""
    off = torch.randn(len(faces), 4, generator=generator) * torch.tensor([OFF[0], OFF[0], OFF[1], OFF[2]])
    place, size, roll = faces.split([2, 1, 1], dim=1)
    return torch.cat([place + size * off[:, :2], size * torch.exp(off[:, 2:3]), roll + off[:, 3:]], dim=1)


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
        count = max(1, round(DRAWN * batch))
        parts = portraits(drawn, scenes, count, generator), portraits(rendered, scenes, batch - count, generator)
        pictures, faces, opacity = (torch.cat(both) for both in zip(*parts, strict=True))
        return person_loss(finder, pictures, misplaced(faces, generator), opacity)

    trainer.run(step_loss)
    finder.load_state_dict(trainer.averaged())
    return finder.eval().requires_grad_(False)
