"""The face of one portrait with any expression, and its place in a stream's frames."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from .face_editor import FaceEditorNet
from .model import Prediction, warp

SOFT = 8.0  # the edge of the edited square is 1 / SOFT of half its side wide
FACE = (0.78, 0.95)  # half width and half height of the face, in halves of the square's side
FACE_TOP = -0.1  # its middle, in the same unit, from the square's
FACE_SOFT = 3.0
STILL = 0.05  # what lies above this moves with the head alone; below are lips and jaw


class PortraitFace:
    """A portrait whose face gets other expressions.

    editor: on its device. portrait: [1, 3, S, T] in [-1, 1], on the same device. crop: its face, in its pixels. face:
    the same face [1, 3, SIDE, SIDE], best cut out of a larger portrait.
    """

    def __init__(self, editor: FaceEditorNet, portrait: Tensor, crop: FaceCrop, face: Tensor) -> None:
        self.editor, self.portrait, self.face = editor, portrait, face
        height, width = portrait.shape[-2:]
        self._place = crop.placed(height, width).to(portrait)
        u, v = self._place[..., 0], self._place[..., 1]
        cos, sin = math.cos(crop.roll) * crop.side, math.sin(crop.roll) * crop.side
        self._to_picture = torch.tensor([[cos / width, -sin / width], [sin / height, cos / height]]).to(portrait)
        self._pasted = ((1 - u.abs().maximum(v.abs())) * SOFT).clamp(0, 1)[:, None]
        inside = 1 - (u / FACE[0]).square() - ((v - FACE_TOP) / FACE[1]).square()
        self._region = (FACE_SOFT * inside).clamp(0, 1)[:, None]
        self._still = self._region * (v < STILL)[:, None]

    def edited(self, expressions: Tensor) -> Tensor:
        """The portrait with each of the expressions [B, 10] of `expression_of`, [B, 3, S, T]."""
        count = len(expressions)
        edit = self.editor(self.face.expand(count, -1, -1, -1), expressions)
        place = self._place.expand(count, -1, -1, -1)
        flow, mask, change = (
            F.grid_sample(x.float(), place, mode="bilinear", padding_mode="border", align_corners=False) for x in edit
        )
        flow = torch.einsum("ij,bjhw->bihw", self._to_picture, flow)
        portrait = self.portrait.expand(count, -1, -1, -1)
        made = torch.lerp(portrait + change, warp(portrait, flow), mask)
        return torch.lerp(portrait, made, self._pasted).clamp(-1, 1)

    def moved_as_one(self, predicted: Prediction) -> Prediction:
        """The prediction with a face that moves as one piece and is trusted.

        The frame's brows, cheeks and nose say how it moves. Lips and jaw do not count: the edited portrait has its own.
        """
        region, still = (smaller(x, predicted.flow) for x in (self._region, self._still))
        weight = warp(still.expand(len(predicted.flow), -1, -1, -1), predicted.flow)
        steady = affine_fit(predicted.flow, weight)
        inside = warp(region.expand(len(steady), -1, -1, -1), steady)
        flow = torch.lerp(predicted.flow, steady, inside)
        trusted = warp(smaller(self._region, predicted.mask).expand(len(flow), -1, -1, -1), flow)
        return predicted._replace(flow=flow, mask=torch.maximum(predicted.mask, trusted))


def smaller(picture: Tensor, like: Tensor) -> Tensor:
    """A map [1, C, S, T] at the height and width of another."""
    return F.interpolate(picture, like.shape[-2:], mode="area")


def affine_fit(flow: Tensor, weight: Tensor) -> Tensor:
    """The affine flow that is nearest to a flow [B, 2, h, w], by least squares with weights [B, 1, h, w]."""
    height, width = flow.shape[-2:]
    y, x = (torch.linspace(-1, 1, side, device=flow.device) for side in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)  # [N, 3]
    weighted = weight.flatten(2).transpose(1, 2) * basis  # [B, N, 3]
    normal = weighted.transpose(1, 2) @ basis + 1e-6 * torch.eye(3, device=flow.device)
    factors = torch.linalg.solve(normal, weighted.transpose(1, 2) @ flow.flatten(2).transpose(1, 2))  # [B, 3, 2]
    return (basis @ factors).transpose(1, 2).unflatten(-1, (height, width))
