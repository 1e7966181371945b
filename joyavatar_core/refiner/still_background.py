"""Keeps what is behind the person of one portrait where it is while the head moves.

A head's flow goes on beyond the head, so what is behind it would sway with it. The definition is this project's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from ..framing.person_finder import person_finder
from .model import dilated, warp
from .portrait_face import FACE, FACE_TOP

SIDE = 128  # cells of the longer side of the map
DOUBTFUL, SURE = 0.12, 0.35  # probabilities of the person: below the first nothing moves, from the second on all does
# In halves of the face square's side.
RIM = 0.08  # what is so near to the person moves as the person does
BAND = 0.3  # beyond, usual movements end within this; a narrower band folds what is in it


class StillBackground:
    """Ends flows of one portrait at the outline of the person.

    portrait: [3, H, W] in [-1, 1]. crop: its face, in its pixels. device: where flows are. motion: factor of the usual
    movements; larger ones end within a wider band.
    """

    def __init__(
        self, portrait: Tensor, crop: FaceCrop, device: torch.device | str = "cpu", motion: float = 1.0
    ) -> None:
        height, width = portrait.shape[-2:]
        rows, columns = (max(1, round(SIDE * side / max(height, width))) for side in (height, width))
        found = person_finder().find(portrait, crop)[None, None]
        found = ((found - DOUBTFUL) / (SURE - DOUBTFUL)).clamp(0, 1)
        found = F.interpolate(found, (rows, columns), mode="bilinear", align_corners=False)
        x, y = crop.placed(rows, columns, height, width).unbind(-1)
        face = ((x / FACE[0]).square() + ((y - FACE_TOP) / FACE[1]).square() < 1).to(found)  # it moves, found or not
        unit = crop.side / 2 * columns / width  # cells
        rim, band = (max(1, round(share * unit)) for share in (RIM, BAND * max(motion, 1) / 4))
        moves = dilated(torch.maximum(found, face), 2 * (rim + 2 * band) + 1)
        for _ in range(2):  # smooth: it falls from 1 to 0 within four times `band`
            moves = F.avg_pool2d(moves, 2 * band + 1, 1, band, count_include_pad=False)
        self.moves = moves.to(device)

    def __call__(self, flow: Tensor) -> Tensor:
        """A flow [B, 2, h, w], in halves of the picture's side, with 0 beyond the person and the band around it."""
        return flow * warp(self.moves.expand(len(flow), -1, -1, -1), flow, flow.shape[-2:])
