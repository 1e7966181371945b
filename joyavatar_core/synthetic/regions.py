"""Regions of a face, computed from the box of its mouth."""

from __future__ import annotations

import torch
from torch import Tensor

EYES_RISE, EYES_SIZE = 1.8, (1.3, 0.8)  # above the mouth's middle and against its region, in units of half that


def eyes_above(mouth: Tensor) -> Tensor:
    """The region of eyes, brows and glasses, from the mouth's: drawn faces have both at one place.

    Both are [..., 4]: left, top, right, bottom, in the unit of what is given (pixels or latent cells).
    """
    (x, y), half = (mouth[..., :2] + mouth[..., 2:]).div(2).unbind(-1), (mouth[..., 2:] - mouth[..., :2]) / 2
    middle = torch.stack([x, y - EYES_RISE * half[..., 1]], dim=-1)
    half = half * torch.stack([torch.full_like(x, size) for size in EYES_SIZE], dim=-1)
    return torch.cat([middle - half, middle + half], dim=-1)
