"""The face of one portrait with any expression, and its place in a stream's frames."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_crop import FaceCrop
from .face_editor import EYE_SCALE, MOUTH_SIZE, SIDE, Edit, FaceEditorNet, changed
from .model import SHARPER, dilated, sharpened, warp
from .skin_texture import skin_texture

SOFT = 8.0  # the edge of the edited square is 1 / SOFT of half its side wide
FACE = (0.78, 0.95)  # half width and half height of the face, in halves of the square's side
FACE_TOP = -0.1  # its middle, in the same unit, from the square's
FACE_SOFT = 3.0
REGION = 128  # side of the face's map
VISIBLE, COVERING = 0.15, 0.5  # sizes of a change, of -1 ... 1: below the first, detail stays; from the second, none
CLOSING = 0.3  # closure of the lids from which on a change of the eyes covers as any other does
OTHER = 0.45, 0.8  # sizes of a change: from the first, less of the skin's texture is kept; from the second, none
NEAR = 5  # pairs of pixels around a large change that it covers, too
CELL, CELLS = 8, 9  # the skin near a lid: its mean over so many cells of so many pixels, across and down
SKIN = (-0.7, 0.7), (-0.55, -0.2)  # columns and rows of the square that count for it: not hair nor brows
STRONGER = 0.08  # of a brightness: a colour that is so much stronger counts wholly
# Strengths of a face's strongest colours: up to the first, its edits are grey; from the second, they are not.
COLOURLESS = 0.03, 0.1
STRONGEST = 0.9  # share of a face whose colours are weaker than that
DARK = 1e-3  # least brightness, 0 ... 1, that a colour is compared with
# Heights in the square, -1 ... 1.
STILL = 0.05  # what lies above this moves with the head alone; below are lips and jaw
EYES = -0.2  # the eyes are above this
UPPER = CELL * round((EYES + 1) / 2 * SIDE / CELL)  # rows of the square, which have the eyes


class PortraitFace:
    """A portrait whose face gets other expressions.

    editor: on its device. portrait: [1, 3, S, T] in [-1, 1], on the same device. crop: its face, in its pixels. seen:
    the portrait as the editor sees it, of the same shape; None: `portrait`.
    """

    def __init__(self, editor: FaceEditorNet, portrait: Tensor, crop: FaceCrop, seen: Tensor | None = None) -> None:
        self.editor = editor
        self.face = crop.cut(portrait if seen is None else seen, SIDE)
        x, y = unmoved((SIDE, SIDE), portrait.device)
        colours = strength((self.face + 1) / 2).masked_fill(within_face(x, y) <= 0, torch.nan)
        strongest = torch.nanquantile(colours, STRONGEST)
        self._coloured = ((strongest - COLOURLESS[0]) / (COLOURLESS[1] - COLOURLESS[0])).clamp(0, 1)
        self._share = crop.side / portrait.shape[-1]
        self._into, self._out = (matrix.to(portrait) for matrix in crop.matrices(*portrait.shape[-2:]))
        u, v = crop.placed(REGION, REGION, *portrait.shape[-2:])[None].to(portrait).unbind(-1)
        self.region = (FACE_SOFT * within_face(u, v)).clamp(0, 1)[:, None]
        self._textured = torch.cat([portrait, skin_texture(portrait, self.region)], dim=1)
        self.portrait = self._textured[:, :3]
        self.still = self.region * (v < STILL)[:, None]
        (left, right), (top, bottom) = SKIN
        self._skin = ((x > left) & (x < right) & (y > top) & (y < bottom))[:UPPER].to(portrait)

    def edit(self, expressions: Tensor) -> Edit:
        """What gives the face each of the expressions [B, 11] of `expression_of`."""
        return self.editor(self.face, expressions)

    def shown(self, edit: Edit, expressions: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
        """The portrait with faces edited to expressions [B, 11], moved by flows [B, 2, h, w], [B, 3, *size]."""
        maps, step = self._edits(edit, expressions)
        if self._share * size[1] > SIDE:  # the square is enlarged, so interpolation softens it as it does a portrait
            maps[:, :4] = sharpened(maps[:, :4], SHARPER)
            maps[:, 3].clamp_(0, 1)
        # A place in the square is an affine function of the place in the portrait, so both are enlarged together.
        flow = torch.cat([flow, torch.einsum("ij,bjhw->bihw", self._into[:, :2], flow)], dim=1)
        here = unmoved(size, flow.device)
        here = torch.cat([here, torch.einsum("ij,jhw->ihw", self._into[:, :2], here) + self._into[:, 2, None, None]])
        shown = flow.new_empty(len(flow), 3, *size)
        at_once = frames_at_once(flow.device.type) or len(flow)
        for some in zip(*(part.split(at_once) for part in (shown, maps, step, flow)), strict=True):
            self._show(*some, here)
        return shown

    def _edits(self, edit: Edit, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to the face, in its square: maps [B, 6, S, S], and how far it moves, [B, 2, h, w], in the
        portrait. Maps: what is new; how far that hides what was there; how little the moved face is trusted; how much
        of the skin's texture is added to what is new.
        """
        # The change was made for the face as the editor saw it. Finer detail would show through lids and closed lips.
        seen = self.face.expand(len(expressions), -1, -1, -1)
        change = changed(seen, edit)
        upper = (..., slice(UPPER), slice(None))
        lids = edit.covered[upper] * lid_closure(expressions)
        change[upper] = tinted(change[upper], lids, seen[upper], self._skin * (1 - edit.covered[upper]))
        change = change - seen
        change = torch.lerp(brightness(change).expand_as(change), change, self._coloured)
        size = change.abs().amax(1, keepdim=True)
        covered = torch.maximum(edit.covered, covering(size, expressions))
        skin = covered * same_skin(size)
        maps = torch.cat([covered * seen + change, covered, 1 - edit.mask, skin], dim=1)
        return maps, torch.einsum("ij,bjhw->bihw", self._out[:, :2], edit.flow.float())

    def _show(self, picture: Tensor, maps: Tensor, step: Tensor, flow: Tensor, here: Tensor) -> None:
        """Draw frames into picture [B, 3, H, W].

        maps, step: of `_edits`. flow [B, 4, h, w]: in the portrait and in the square. here [4, H, W]: unmoved places.
        """
        places = F.interpolate(flow, picture.shape[-2:], mode="bilinear", align_corners=False).add_(here)
        place, square = places.movedim(1, -1).split(2, dim=-1)
        picture.copy_(sampled(self.portrait, place))
        rows, columns = part_within(square)
        place, square, part = place[:, rows, columns], square[:, rows, columns], picture[..., rows, columns]
        pasted = ((1 - square.abs().amax(-1)) * SOFT).clamp(0, 1)[:, None]
        new, covered, unsure, skin = (sampled(maps, square) * pasted).split([3, 1, 1, 1], dim=1)
        step = (sampled(step, square) * pasted).movedim(1, -1)
        moved, texture = sampled(self._textured, place + step).split([3, 1], dim=1)
        new = torch.addcmul(torch.addcmul(new, part, 1 - covered), texture, skin)
        part.copy_(torch.lerp(moved, new, unsure).clamp_(-1, 1))

    def moved_as_one(self, flow: Tensor) -> Tensor:
        """A predicted flow [B, 2, h, w] with a face that moves as one piece.

        The frame's brows, cheeks and nose say how it moves. Lips and jaw do not count: the edited portrait has its own.
        """
        region, still = (resized_map(x, flow) for x in (self.region, self.still))
        steady = affine_fit(flow, warp(still.expand(len(flow), -1, -1, -1), flow))
        inside = warp(region.expand(len(steady), -1, -1, -1), steady)
        return torch.lerp(flow, steady, inside)


def covering(size: Tensor, expressions: Tensor) -> Tensor:
    """How far changes of a size [B, 1, S, S] cover what was there, [B, 1, S, S], 0 ... 1: wholly where they are large.

    Around the eyes only while lids close: a glance moves an eye and covers nothing.
    """
    near = dilated(F.max_pool2d(size, 2), NEAR)  # it is smooth: half the side will do
    near = F.avg_pool2d(near, NEAR, 1, NEAR // 2, count_include_pad=False)
    above = torch.linspace(-1, 1, near.shape[-2], device=near.device)[:, None] < EYES
    covers = torch.where(above, lid_closure(expressions), 1.0)
    covered = ((near - VISIBLE) / (COVERING - VISIBLE)).clamp(0, 1) * covers
    return F.interpolate(covered, size.shape[-2:], mode="bilinear", align_corners=False)


def same_skin(size: Tensor) -> Tensor:
    """How far a face with changes of a size [B, 1, S, S] still has the skin that was there, [B, 1, S, S], 0 ... 1."""
    near = F.avg_pool2d(size, NEAR, 1, NEAR // 2, count_include_pad=False)
    return 1 - ((near - OTHER[0]) / (OTHER[1] - OTHER[0])).clamp(0, 1)


def lid_closure(expressions: Tensor) -> Tensor:
    """How far the lids of expressions [B, 11] cover the eyes, [B, 1, 1, 1] in 0 ... 1."""
    return (expressions[:, MOUTH_SIZE] / EYE_SCALE[0] / CLOSING).clamp(0, 1)[:, None, None, None]


def tinted(picture: Tensor, part: Tensor, face: Tensor, skin: Tensor) -> Tensor:
    """A picture [B, 3, H, W] in which a part gets the colour of the skin near it, as bright as it was.

    part: [B, 1, H, W] in 0 ... 1. face: [B, 3, H, W], where the colour is from; skin: [B, 1, H, W], what of it counts.
    Colours that are already stronger stay. The editor has seen few skins, so its lids tend to be grey.
    """
    face, now = (face + 1) / 2, (picture + 1) / 2
    near = F.avg_pool2d(torch.cat([face, brightness(face)], dim=1) * skin, CELL)
    near = F.avg_pool2d(near, CELLS, 1, CELLS // 2)
    colour = near[:, :3] / near[:, 3:].clamp(min=DARK)
    light = brightness(now)
    wanted = light * F.interpolate(colour, picture.shape[-2:], mode="bilinear")
    stronger = (strength(wanted) - strength(now)) / (STRONGER * light.clamp(min=DARK))
    return torch.lerp(picture, 2 * wanted - 1, part * stronger.clamp(0, 1))


def within_face(x: Tensor, y: Tensor) -> Tensor:
    """1 in the middle of the face, 0 at its edge, below 0 outside; x, y: places in the square, -1 ... 1."""
    return 1 - (x / FACE[0]).square() - ((y - FACE_TOP) / FACE[1]).square()


def strength(colour: Tensor) -> Tensor:
    """How colourful pictures [B, 3, H, W] are, [B, 1, H, W]; 0: grey."""
    return colour.amax(1, keepdim=True) - colour.amin(1, keepdim=True)


def brightness(colour: Tensor) -> Tensor:
    """The luma of pictures [B, 3, H, W], [B, 1, H, W] (ITU-R BT.709)."""
    red, green, blue = colour.split(1, dim=1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def frames_at_once(device: str) -> int | None:
    """How many frames are drawn together on a device; None: all."""
    return 1 if device == "cpu" else None  # one fits in a processor's cache


@lru_cache(4)
def unmoved(size: tuple[int, int], device: torch.device) -> Tensor:
    """Where the pixels of a picture of a size (height, width) are, [2, height, width], x and y in -1 ... 1."""
    y, x = ((2 * torch.arange(side, device=device) + 1) / side - 1 for side in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def part_within(square: Tensor) -> tuple[slice, slice]:
    """Rows and columns beyond which no place [B, h, w, 2] is within -1 ... 1. All, on a GPU: it would be waited for."""
    if square.device.type != "cpu":
        return slice(None), slice(None)
    within = (square.abs().amax(-1) < 1).any(0)
    return tuple(_extent(within.any(axis)) for axis in (1, 0))


def _extent(inside: Tensor) -> slice:
    found = inside.nonzero()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def resized_map(picture: Tensor, like: Tensor) -> Tensor:
    """A map [1, C, S, T] at the height and width of another."""
    return F.interpolate(picture, like.shape[-2:], mode="bilinear", align_corners=False)


def sampled(picture: Tensor, place: Tensor) -> Tensor:
    """Pictures [B, C, H, W], or one for all, at places [B, h, w, 2] in -1 ... 1."""
    picture = picture.expand(len(place), -1, -1, -1)
    return F.grid_sample(picture, place, mode="bilinear", padding_mode="border", align_corners=False)


def affine_fit(flow: Tensor, weight: Tensor) -> Tensor:
    """The affine flow that is nearest to a flow [B, 2, h, w], by least squares with weights [B, 1, h, w]."""
    height, width = flow.shape[-2:]
    y, x = (torch.linspace(-1, 1, side, device=flow.device) for side in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)  # [N, 3]
    weighted = weight.flatten(2).transpose(1, 2) * basis  # [B, N, 3]
    normal = weighted.transpose(1, 2) @ basis + 1e-6 * torch.eye(3, device=flow.device)
    wanted = weighted.transpose(1, 2) @ flow.flatten(2).transpose(1, 2)
    factors, _ = torch.linalg.solve_ex(normal, wanted)  # [B, 3, 2]; a GPU is not waited for
    return (basis @ factors).transpose(1, 2).unflatten(-1, (height, width))
