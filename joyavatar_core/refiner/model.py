"""The portrait refiner: a small U-Net that moves the portrait's own detail to where a decoded frame shows the face.

From a decoded frame, the portrait, the portrait through the autoencoder and the frame's visemes it predicts where every
pixel of the portrait has moved (flow), how far the moved portrait is to be trusted (mask), and what is new (residual):

    refined = mask * warp(portrait, flow) + (1 - mask) * (frame + residual)

With visemes the lips are drawn as they say; without them they stay as the frame shows them. A face editor, where there
is one and the portrait has a face, draws lips and lids instead (`portrait_face.py`). Each frame is refined by itself.
The definition is this project's own; warping a source picture by a predicted flow with an occlusion mask follows FOMM
(arXiv 2003.00196), scaling and shifting features by a condition FiLM (arXiv 1709.07871).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet import Layer

SCALE = 2  # sides of the predicted picture in sides of the frame
WIDTHS = (48, 96, 128, 128)  # channels at 1/2, 1/4, 1/8 and 1/16 of the frame's side
DETAIL = 12  # channels of the U-Net's features at the frame's own side
HEAD = 32  # channels of the head at the frame's own side
CONDITION_SIZE = 1 + 8  # numbers that describe a frame's voice: 1 if there are visemes, and the visemes
SAID = 64  # numbers that are made of these, beside them
GAIN = 6.0  # of the layers for visemes: they have few inputs and would learn later than the convolutions
LOUDEST = 2.5  # deviations: visemes are bent to stay below, since rare ones come much stronger
REACH = 0.3  # the longest flow, in halves of the picture's side
SHARPER = 0.17  # enlarged pictures are sharpened by as much: at rest, frames are then nearest to the portrait
FIRST_MASK = 2.0  # logit: the portrait is trusted at first


class Prediction(NamedTuple):
    """What the refiner says of B frames [B, 3, H, W].

    flow [B, 2, H / 2, W / 2]: from a pixel to its place in the portrait, in halves of a side (x, y).
    mask [B, 1, 2H, 2W] in 0 ... 1. residual [B, 3, 2H, 2W].
    """

    flow: Tensor
    mask: Tensor
    residual: Tensor


class Block(Layer):
    """Two convolutions with group norm, FiLM and SiLU; the size stays."""

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """film [B, 4 * outputs]: scales and shifts behind either norm."""
        scale, shift, scale_again, shift_again = film[..., None, None].chunk(4, dim=1)
        first, norm, act, second, norm_again, act_again = self
        x = act(norm(first(x)) * (1 + scale) + shift)
        return act_again(norm_again(second(x)) * (1 + scale_again) + shift_again)


class RefinerNet(nn.Module):
    """[B, 3, H, W] frames, [B, 3, H, W] round trip and [B, 3, 2H, 2W] portrait in [-1, 1] -> Prediction.

    condition: [B, 9] of `viseme_condition`; None: no visemes. part: share of a whole picture's side that is shown.
    H and W are multiples of 16. The flow is found on features of 1/2 and, for the head as a whole, 1/8 of the side.
    Mask and residual are then found with the warped portrait in view.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.editor: nn.Module | None = None  # a FaceEditorNet, where the refiner has one
        self.latent_flow: nn.Module | None = None  # likewise, a LatentFlowNet
        inputs = (3 + 3) * 4 + 3 * 16
        self.down = nn.ModuleList(Block(i, o) for i, o in zip((inputs, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(
            Block(below + beside, beside) for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.coarse_flow = nn.Conv2d(widths[-2], 2, 3, padding=1)
        self.fine_flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        self.detail = nn.Conv2d(widths[0], 4 * DETAIL, 1)
        self.head = nn.Sequential(
            nn.Conv2d(DETAIL + 3 + 3 + 12, HEAD, 3, padding=1), nn.SiLU(),
            nn.Conv2d(HEAD, HEAD, 3, padding=1), nn.SiLU(),
            nn.Conv2d(HEAD, 4 + 12, 3, padding=1),
        )  # fmt: skip
        self.said = nn.Sequential(nn.Linear(CONDITION_SIZE, SAID), nn.SiLU(), nn.Linear(SAID, SAID))
        outputs = (*widths, *widths[-2::-1])
        self.film = nn.ModuleList(nn.Linear(CONDITION_SIZE + SAID, 4 * count) for count in outputs)
        self.head_film = nn.Linear(CONDITION_SIZE + SAID, 2 * HEAD)
        # What each viseme adds to the flow, to mask and residual: maps that are weighed by the visemes.
        self.coarse_mouth = nn.Conv2d(widths[-2], 2 * CONDITION_SIZE, 3, padding=1)
        self.fine_mouth = nn.Conv2d(widths[0], 2 * CONDITION_SIZE, 3, padding=1)
        self.mouth_head = nn.Linear(CONDITION_SIZE, (4 + 12) * HEAD)
        silent = (*self.film, self.head_film, self.coarse_mouth, self.fine_mouth, self.mouth_head)
        for layer in (self.coarse_flow, self.fine_flow, self.head[-1], *silent):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.head[-1].bias[:4], FIRST_MASK)

    def forward(
        self, frame: Tensor, round_trip: Tensor, portrait: Tensor, condition: Tensor | None = None, part: float = 1.0
    ) -> Prediction:
        flow, x, condition, said = self._flow(frame, round_trip, portrait, condition, part)
        round_trip, portrait = (still.expand(len(frame), -1, -1, -1) for still in (round_trip, portrait))
        moved = F.pixel_unshuffle(warp(portrait, flow), 2)
        detail = F.pixel_shuffle(self.detail(x), 2)
        near = torch.cat([detail, frame, warp(round_trip, flow), moved], 1)
        scale, shift = self.head_film(said)[..., None, None].chunk(2, dim=1)
        first, *rest, last = self.head
        out = first(near.contiguous(memory_format=torch.channels_last)) * (1 + scale) + shift
        for layer in rest:
            out = layer(out)
        by_visemes = self.mouth_head(GAIN * condition).unflatten(1, (-1, HEAD))  # a point's outputs for its channels
        out = last(out).float() + torch.einsum("bchw,boc->bohw", out, by_visemes.to(out)).float()
        return Prediction(flow, F.pixel_shuffle(out[:, :4], 2).sigmoid(), F.pixel_shuffle(out[:, 4:], 2))

    def flow(self, frame: Tensor, round_trip: Tensor, portrait: Tensor) -> Tensor:
        """The prediction's flow alone, [B, 2, H/2, W/2], without visemes."""
        return self._flow(frame, round_trip, portrait, None, 1.0)[0]

    def _flow(
        self, frame: Tensor, round_trip: Tensor, portrait: Tensor, condition: Tensor | None, part: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The flow, the features it was found on, the condition, and what FiLM layers get."""
        count = len(frame)
        condition = frame.new_zeros(count, CONDITION_SIZE) if condition is None else condition
        said = GAIN * torch.cat([condition, self.said(condition)], dim=1)
        film = [layer(said) for layer in self.film]
        round_trip, portrait = (still.expand(count, -1, -1, -1) for still in (round_trip, portrait))
        seen = [F.pixel_unshuffle(torch.cat([frame, round_trip], 1), 2), F.pixel_unshuffle(portrait, 4)]
        x = torch.cat(seen, 1).contiguous(memory_format=torch.channels_last)
        kept = []
        for down, told in zip(self.down, film[: len(self.down)], strict=True):
            x = down(F.avg_pool2d(x, 2) if kept else x, told)
            kept.append(x)
        coarse = None
        for up, beside, told in zip(self.up, kept[-2::-1], film[len(self.down) :], strict=True):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], 1), told)
            if coarse is None:
                coarse = self.coarse_flow(x).float() + weighed(self.coarse_mouth(x), condition)
        coarse = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        flow = REACH / part * torch.tanh(self.fine_flow(x).float() + weighed(self.fine_mouth(x), condition) + coarse)
        return flow, x, condition, said


def weighed(maps: Tensor, condition: Tensor) -> Tensor:
    """Maps [B, C * 9, H, W], C for each number of the condition [B, 9] -> weighted sum [B, C, H, W], float32."""
    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("bckhw,bk->bchw", maps.unflatten(1, (-1, CONDITION_SIZE)).float(), condition.float())


def viseme_condition(visemes: Tensor | None, count: int) -> Tensor:
    """The condition of `count` frames for `RefinerNet`, [count, 9] float32, from visemes [count, 8] or from none."""
    if visemes is None:
        return torch.zeros(count, CONDITION_SIZE)
    return F.pad(LOUDEST * torch.tanh(visemes.float() / LOUDEST), (1, 0), value=1.0)


def dilated(picture: Tensor, size: int) -> Tensor:
    """The maximum of a picture [B, C, H, W] within `size` by `size` pixels around each pixel; size is odd."""
    down = F.max_pool2d(picture, (size, 1), 1, (size // 2, 0))
    return F.max_pool2d(down, (1, size), 1, (0, size // 2))


def warp(picture: Tensor, flow: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Move a picture [B, C, H, W] by a flow [B, 2, h, w] of any size, in halves of the picture's side.

    size: (height, width) of what comes out, by default the picture's.
    """
    return F.grid_sample(
        picture.float(), places(flow, size or picture.shape[-2:]), mode="bilinear", padding_mode="border",
        align_corners=False,
    )  # fmt: skip


def places(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each pixel of a moved picture of a size (height, width) comes from, [B, height, width, 2] in -1 ... 1."""
    height, width = size
    flow = F.interpolate(flow.float(), (height, width), mode="bilinear", align_corners=False)
    x, y = (torch.arange(side, device=flow.device) * 2 + 1 for side in (width, height))
    place = torch.stack(torch.meshgrid(x / width - 1, y / height - 1, indexing="xy"))
    return (place + flow).permute(0, 2, 3, 1)


def compose(frame: Tensor, portrait: Tensor, predicted: Prediction) -> Tensor:
    """Refined frames [B, 3, S, T] in [-1, 1], of the portrait's size [1 or B, 3, S, T]."""
    return blended(frame, warp(portrait.expand(len(frame), -1, -1, -1), predicted.flow), predicted)


def blended(frame: Tensor, moved: Tensor, predicted: Prediction) -> Tensor:
    """Refined frames of the size of the moved portraits [B, 3, S, T].

    The mask is scaled to that size, and so is what the frame adds: only the portrait's own detail grows with it.
    """
    size = moved.shape[-2:]
    mask, new = predicted.mask, resized(frame.float(), predicted.mask.shape[-2:]) + predicted.residual
    mask, new = resized(mask, size).clamp(0, 1), resized(new, size)
    return torch.lerp(new, moved, mask).clamp(-1, 1)


def sharpened(picture: Tensor, strength: float) -> Tensor:
    """Pictures or maps [B, C, H, W] with stronger fine detail, by up to 1 + 4 * strength along an axis.

    Interpolation between their pixels takes that away again. They may leave their range at edges.
    """
    for axis, ends in ((-2, (0, 0, 1, 1)), (-1, (1, 1, 0, 0))):
        side, padded = picture.shape[axis], F.pad(picture, ends, mode="replicate")
        near = padded.narrow(axis, 0, side) + padded.narrow(axis, 2, side)
        picture = (1 + 2 * strength) * picture - strength * near
    return picture


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [B, C, H, W] at another size: bicubic, with antialiasing where it shrinks."""
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    smaller = size[0] < picture.shape[-2]
    return F.interpolate(picture, size, mode="bicubic", align_corners=False, antialias=smaller)
