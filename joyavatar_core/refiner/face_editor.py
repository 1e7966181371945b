"""The face editor: a small U-Net that gives a portrait's face another expression, before the refiner moves the head.

It sees the face as an upright square (`FaceCrop`) and is told what the mouth, the lids, the gaze and the brows are to
be. It predicts where every pixel of the square has moved (flow), how far to trust the moved square (mask), what is new
(change: the mouth's inside, lids), and how far that hides what was there (covered):

    edited = mask * warp(face, flow) + (1 - mask) * ((1 - covered) * face + change)

The definition is this project's own; flow and mask follow FOMM (arXiv 2003.00196), the condition FiLM
(arXiv 1709.07871), the coordinates among the inputs CoordConv (arXiv 1807.03247).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Block, warp

SIDE = 256  # pixels of the square
CELL = 4  # pixels of a side of the finest features' cells
REPEATS = 3  # cells, across and down, over which a pattern is the same
WIDTHS = (32, 64, 96, 128)  # channels at 1/4, 1/8, 1/16 and 1/32 of the side
HEAD = 96  # channels of the head
EMBEDDED = 64  # numbers that are made of the condition, beside it
COARSE, FINE = 32, 64  # sides of the maps that are the same for all faces
REACH = 0.3  # the longest flow, in halves of the side
SUREST = 4.0  # the mask's logit stays within: a surer one would no longer learn
# Mean and deviation of `MouthShape`'s numbers over speech, as the viseme encoder scales them.
MOUTH_MEAN = (0.255, 0.173, 0.204, 0.094, 0.085, 0.055, 0.152)
MOUTH_DEVIATION = (0.234, 0.195, 0.233, 0.135, 0.091, 0.213, 0.339)
ROUND = 2  # column of the lips' rounding
ROUNDEST = 0.6  # it is bent to stay below: rounder lips come out soft
EYE_SCALE = (2.0, 4.0, 4.0)  # of closure and gaze: their deviations are then like the mouth's
BROW_SCALE, BROW_REACH = 2.0, 1.7  # of the brows' lift: likewise; and the largest lift in training
MOUTH_SIZE, EYES_SIZE, BROWS_SIZE = len(MOUTH_MEAN), len(EYE_SCALE), 1
EXPRESSION_SIZE = MOUTH_SIZE + EYES_SIZE + BROWS_SIZE


class Edit(NamedTuple):
    """What the editor says of B faces: flow [B, 2, S / 4, S / 4] in halves of the side; mask and covered
    [B, 1, S, S] in 0 ... 1; change [B, 3, S, S].
    """

    flow: Tensor
    mask: Tensor
    covered: Tensor
    change: Tensor


class FaceEditorNet(nn.Module):
    """Faces [B, 3, 256, 256] in [-1, 1], or one for all, and expressions [B, 11] of `expression_of` -> Edit."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = 3 * CELL**2 + 2 + EXPRESSION_SIZE
        self.embed = nn.Sequential(
            nn.Linear(EXPRESSION_SIZE, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED), nn.SiLU()
        )
        self.down = nn.ModuleList(Block(i, o) for i, o in zip((inputs, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(
            Block(below + beside, beside) for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        outputs = (*widths, *widths[-2::-1])
        self.film = nn.ModuleList(nn.Linear(EXPRESSION_SIZE + EMBEDDED, 4 * count) for count in outputs)
        self.flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        # What each number of an expression does to flow, mask, covered and change of any face: squares are aligned.
        self.usual_flow = nn.Parameter(torch.zeros(EXPRESSION_SIZE, 2, COARSE, COARSE))
        self.usual_out = nn.Parameter(torch.zeros(EXPRESSION_SIZE, 1 + 1 + 3, FINE, FINE))
        self.head = nn.Sequential(
            nn.Conv2d(widths[0] + 2 * 3 * CELL**2, HEAD, 3, padding=1), nn.SiLU(),
            nn.Conv2d(HEAD, HEAD, 3, padding=1), nn.SiLU(),
            nn.Conv2d(HEAD, (1 + 1 + 3) * CELL**2, 3, padding=1),
        )  # fmt: skip
        for layer in (self.flow, self.head[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, face: Tensor, expression: Tensor) -> Edit:
        count, side = len(expression), face.shape[-1] // CELL
        told = torch.cat([expression, self.embed(expression)], dim=1)
        film = [layer(told) for layer in self.film]
        quick = dtype_of_layers(face)  # what is joined in another type would be converted again
        place = torch.linspace(-1, 1, side, device=face.device, dtype=quick)
        place = torch.stack(torch.meshgrid(place, place, indexing="xy")).expand(count, -1, -1, -1)
        everywhere = expression.to(quick)[..., None, None].expand(-1, -1, side, side)
        cells = F.pixel_unshuffle(face, CELL).to(quick).expand(count, -1, -1, -1)
        x = torch.cat([cells, place, everywhere], 1).contiguous(memory_format=torch.channels_last)
        kept = []
        for down, scales in zip(self.down, film[: len(self.down)], strict=True):
            x = down(F.avg_pool2d(x, 2) if kept else x, scales)
            kept.append(x)
        for up, beside, scales in zip(self.up, kept[-2::-1], film[len(self.down) :], strict=True):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], 1), scales)
        flow = REACH * torch.tanh(self.flow(x).float() + combined(expression, self.usual_flow, side))
        moved = F.pixel_unshuffle(warp(face.expand(count, -1, -1, -1), flow).to(quick), CELL)
        out = self.head(torch.cat([x, cells, moved], 1).contiguous(memory_format=torch.channels_last)).float()
        # A pattern that repeats from cell to cell would be seen as stripes and dashes. Its mean over a cell stays.
        pattern = F.avg_pool2d(out, REPEATS, 1, REPEATS // 2, count_include_pad=False)
        even = pattern.unflatten(1, (-1, CELL**2)).mean(2) + combined(expression, self.usual_out, side)
        even = F.interpolate(even, face.shape[-2:], mode="bilinear", align_corners=False)
        out = F.pixel_shuffle(out - pattern, CELL) + even
        mask = (SUREST * torch.tanh(out[:, :1] / SUREST)).sigmoid()
        return Edit(flow, mask, out[:, 1:2].clamp(0, 1), out[:, 2:])


def dtype_of_layers(x: Tensor) -> torch.dtype:
    """What convolutions convert to on the device of `x`: autocast's dtype, or that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def combined(weights: Tensor, maps: Tensor, side: int) -> Tensor:
    """Sums of maps [K, C, S, S] with weights [B, K], enlarged to [B, C, side, side], in float32."""
    with torch.autocast(maps.device.type, enabled=False):
        made = torch.einsum("bk,kchw->bchw", weights.float(), maps.float())
    return F.interpolate(made, (side, side), mode="bilinear", align_corners=False)


def edited(face: Tensor, edit: Edit) -> Tensor:
    """Faces [B, 3, S, S] with another expression."""
    return torch.lerp(changed(face, edit), warp(face, edit.flow), edit.mask).clamp(-1, 1)


def changed(face: Tensor, edit: Edit) -> Tensor:
    """Faces [B, 3, S, S] with what is new."""
    return (1 - edit.covered) * face + edit.change


def expression_of(mouth: Tensor, eyes: Tensor, brows: Tensor) -> Tensor:
    """The condition of `FaceEditorNet`, [N, 11] float32.

    mouth [N, 7]: shapes at zero mean and unit deviation over speech, as the viseme encoder gives them. eyes [N, 3]: of
    `EyeMovements`. brows [N]: how far they are lifted from where they are in the portrait, in units of `Moment.lift`.
    """
    lift = BROW_SCALE * brows.float().clamp(-BROW_REACH, BROW_REACH)
    return torch.cat([mouth.float().clamp(-3, 4), eyes.float() * torch.tensor(EYE_SCALE), lift[:, None]], dim=1)


def scaled_mouth(shapes: Tensor) -> Tensor:
    """`MouthShape`s [N, 7] at zero mean and unit deviation over speech."""
    return (shapes - torch.tensor(MOUTH_MEAN)) / torch.tensor(MOUTH_DEVIATION)


def less_round(mouth: Tensor) -> Tensor:
    """Shapes [N, 7] of `expression_of` with the lips' rounding bent to stay below ROUNDEST."""
    mean, deviation = MOUTH_MEAN[ROUND], MOUTH_DEVIATION[ROUND]
    mouth = mouth.clone()
    mouth[:, ROUND] = (ROUNDEST * torch.tanh((mouth[:, ROUND] * deviation + mean) / ROUNDEST) - mean) / deviation
    return mouth
