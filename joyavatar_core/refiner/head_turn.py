"""Moves the head in the frames of one portrait: maps, frames and portrait are sampled from shifted places.

The definition is this project's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from .model import Prediction, warp

HEAD = (1.15, 1.35)  # half width and half height of head and hair, in halves of the face square's side
HEAD_TOP = -0.45  # their middle, from the square's
NECK = 1.1  # where the head turns in the picture's plane, below the square's middle
FOLLOWS = 1.1  # what is around the head follows it less and less, as far as so many of its radii
BORDER = 0.12  # halves of the picture in which the shift goes down to 0 towards its borders
MAP = 64  # side of the shift's map


class HeadTurn:
    """Turns the head of one portrait, by poses of `HeadMovements`.

    crop: the face of the portrait, in its pixels. portrait: [1, 3, S, T], on its device.
    """

    def __init__(self, crop: FaceCrop, portrait: Tensor) -> None:
        height, width = portrait.shape[-2:]
        self._out = crop.matrices(height, width)[1][:, :2].to(portrait)
        place = crop.placed(MAP, MAP, height, width).to(portrait)
        across, down = (place - place.new_tensor([0, HEAD_TOP])).div(place.new_tensor(HEAD)).unbind(-1)
        radius = torch.hypot(across, down)
        self._dome = (1 - radius.square()).clamp(min=0)[..., None]  # a sphere's rim would fold the outline of the hair
        ends = (2 * torch.arange(MAP).to(portrait) + 1) / MAP - 1
        inside = ((1 - ends.abs()) / BORDER).clamp(max=1)
        self._follows = (eased((1 + FOLLOWS - radius) / FOLLOWS) * inside * inside[:, None])[..., None]
        self._lever = place - place.new_tensor([0, NECK])

    def shift(self, poses: Tensor) -> Tensor:
        """Where each place is sampled from, [B, 2, MAP, MAP] in halves of the picture's side; poses [B, 5]."""
        x, y, roll, yaw, pitch = poses[..., None, None].unbind(1)
        moved = torch.stack([x, y], -1) + self._dome * torch.stack([yaw, pitch], -1)
        turned = roll[..., None] * torch.stack([-self._lever[..., 1], self._lever[..., 0]], -1)
        return (-self._follows * (moved + turned) @ self._out.T).movedim(-1, 1)

    def __call__(self, predicted: Prediction, frames: Tensor, poses: Tensor) -> tuple[Prediction, Tensor]:
        """The prediction for frames [B, 3, h, w], and the frames, with the head turned."""
        shift = self.shift(poses)
        mask, residual, frames = (warp(x, shift) for x in (predicted.mask, predicted.residual, frames))
        return Prediction(self.flow(predicted.flow, poses), mask, residual), frames

    def flow(self, flow: Tensor, poses: Tensor) -> Tensor:
        """A flow [B, 2, h, w] with the head turned."""
        shift = self.shift(poses)
        return warp(flow, shift) + F.interpolate(shift, flow.shape[-2:], mode="bilinear", align_corners=False)


def eased(share: Tensor) -> Tensor:
    """A smooth step from 0 at 0 to 1 at 1."""
    share = share.clamp(0, 1)
    return share.square() * (3 - 2 * share)
