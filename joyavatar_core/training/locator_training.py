"""Trains the face locator on people cut out and put on canvases, whose faces are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_locator import SIZES, STRIDE, USUAL_SIZE, FaceLocator

SIDE = 128  # pixels of a canvas
FACE_SIZES = (9.0, 110.0)  # pixels: faces on canvases, also smaller and larger ones than are to be found
CENTRE_DEPTH = 0.1  # a face's centre lies this far below the eyes, in distances between eyes and chin
HEIGHT = 1.8  # a face's size in the same unit
MOST = 4  # people on a canvas
TILT = 0.2  # radians: the deviation of a head's roll
FOCUS = 2.0  # of the focal loss
HIDDEN = 0.45  # a face that is covered or cut off by more than this share is neither asked for nor refused


@dataclass(frozen=True)
class Cutouts:
    """People without background: pictures [N, 4, S, S] uint8, premultiplied by their opacity, the last channel; eyes
    and chin in pixels, points [N, 3, 2]."""

    pictures: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Canvases:
    """pictures [B, 3, SIDE, SIDE] in -1 ... 1; faces [B, MOST, 4]: x, y, size in pixels and roll; counted [B, MOST]: 1
    for a face to be found, 0 for none, -1 for one that may be found or not."""

    pictures: Tensor
    faces: Tensor
    counted: Tensor


def face_of(points: Tensor) -> Tensor:
    """Eyes and chin [..., 3, 2] -> x, y, size and roll of the face [..., 4].

    The length of a turned or nodding face is the longer of what eyes and chin and what the eyes' distance say.
    """
    eyes = points[..., :2, :].mean(-2)
    down = points[..., 2, :] - eyes
    length = torch.linalg.vector_norm(down, dim=-1)
    centre = eyes + CENTRE_DEPTH * down
    roll = torch.atan2(-down[..., 0], down[..., 1])
    return torch.cat([centre, (HEIGHT * length)[..., None], roll[..., None]], -1)


def compose(people: Cutouts, backgrounds: Tensor, count: int, generator: torch.Generator) -> Canvases:
    """Canvases with none to MOST people each, tilted, mirrored, some cut off or half covered, in all kinds of light.

    backgrounds: [M, 3, s, s] uint8.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    canvas = _background(backgrounds, count, generator)
    number = torch.multinomial(torch.tensor([0.12, 0.5, 0.2, 0.1, 0.08]), count, True, generator=generator)
    faces, counted = torch.zeros(count, MOST, 4), torch.zeros(count, MOST, dtype=torch.long)
    covered = torch.zeros(count, MOST)
    size = people.pictures.shape[-1]
    for k in range(MOST):
        shown = (number > k).nonzero().flatten()
        if not len(shown):
            break
        who = torch.randint(len(people), (len(shown),), generator=generator)
        own = face_of(people.points[who])  # [n, 4] in the cut-out's pixels
        low, high = (math.log(s) for s in FACE_SIZES)
        wanted = torch.exp(uniform(low, high, len(shown)))
        scale = wanted / own[:, 2]  # canvas pixels a cut-out's pixel
        tilt, mirror = TILT * normal(len(shown)), 1 - 2 * (uniform(0, 1, len(shown)) < 0.5).float()
        at = uniform(0.0, SIDE, len(shown), 2)
        at = torch.where((uniform(0, 1, len(shown)) < 0.8)[:, None], _inside(at, wanted), at)
        # canvas -> cut-out: p = M (c - at) / scale + own centre
        cos, sin = torch.cos(tilt), torch.sin(tilt)
        squeeze = 1 + 0.06 * normal(len(shown))
        inverse = torch.stack([mirror * cos / squeeze, mirror * sin / squeeze, -sin, cos], 1).view(-1, 2, 2) / scale[:, None, None]
        c = torch.arange(SIDE) + 0.5
        offset = torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)[None] - at[:, None, None]  # [n, H, W, 2]
        place = offset @ inverse.transpose(1, 2)[:, None] + own[:, None, None, :2]
        place[..., 1] = place[..., 1].clamp(max=size - 1.0)  # what is below the picture goes on as it ends
        level = torch.floor(torch.log2(1 / scale)).clamp(0, 3).long()
        layer = torch.empty(len(shown), 4, SIDE, SIDE)
        for step in level.unique().tolist():
            of = (level == step).nonzero().flatten()
            pictures = F.avg_pool2d(people.pictures[who[of]].float(), 2**step) if step else people.pictures[who[of]].float()
            layer[of] = F.grid_sample(pictures, place[of] * (2 / size) - 1, align_corners=False)
        layer = _recoloured(layer, generator)
        alpha = layer[:, 3:] / 255
        canvas[shown] = canvas[shown] * (1 - alpha) + layer[:, :3]
        roll = mirror * own[:, 3] + tilt
        faces[shown, k] = torch.stack([at[:, 0], at[:, 1], wanted, roll], 1)
        counted[shown, k] = 1
        distance = (torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)[None, None] - faces[shown, : k + 1, None, None, :2]).abs()
        within = (distance.amax(-1) < faces[shown, : k + 1, 2, None, None] / 2).float()  # [n, k + 1, H, W]
        area = faces[shown, : k + 1, 2].square().clamp_min(1)
        if k:
            covered[shown[:, None], torch.arange(k)] += (within[:, :k] * alpha).sum((2, 3)) / area[:, :k]
        covered[shown, k] = 1 - within[:, k].sum((1, 2)) / area[:, k]  # beyond the canvas
    small = (faces[..., 2] < SIZES[0] * 1.15) | (faces[..., 2] > SIZES[1] / 1.15)
    counted[(counted == 1) & (small | (covered > HIDDEN) | (faces[..., 3].abs() > 0.7))] = -1
    pictures = _photographed(canvas, generator)
    return Canvases(pictures / 127.5 - 1, faces, counted)


def _inside(at: Tensor, size: Tensor) -> Tensor:
    """Centres moved so that the face is on the canvas, where it fits."""
    half = (size / 2).clamp(max=SIDE / 2)[:, None]
    return half + at / SIDE * (SIDE - 2 * half)


def _background(backgrounds: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cuttings of any size and place of some backgrounds, mirrored and upside down, float [B, 3, SIDE, SIDE]."""
    which = torch.randint(len(backgrounds), (count,), generator=generator)
    zoom = 0.25 + 0.75 * torch.rand(count, 2, generator=generator)
    flip = torch.randint(2, (count, 2), generator=generator) * 2 - 1
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - zoom)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (zoom * flip).unbind(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, (count, 3, SIDE, SIDE), align_corners=False)
    return F.grid_sample(backgrounds[which].float(), grid, padding_mode="border", align_corners=False)


def _recoloured(layer: Tensor, generator: torch.Generator) -> Tensor:
    """The people of a layer [n, 4, H, W] lighter, darker, in other light."""
    gain = torch.exp(0.2 * torch.randn(len(layer), 3, generator=generator) * torch.tensor([0.5, 0.3, 0.5])
                     + 0.25 * torch.randn(len(layer), 1, generator=generator))  # fmt: skip
    colours = (layer[:, :3] * gain[:, :, None, None]).minimum(layer[:, 3:])
    return torch.cat([colours, layer[:, 3:]], 1)


def _photographed(canvas: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, contrast, gamma, colour or none, dark things in front, grain."""
    count = len(canvas)

    def chosen(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator))[:, None, None, None]

    soft = chosen(0.4)
    if soft.any():
        factor = 2
        small = F.avg_pool2d(canvas[soft], factor)
        canvas[soft] = F.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
    grey = chosen(0.15)
    canvas[grey] = canvas[grey].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    canvas = 255 * (canvas.clamp(0, 255) / 255) ** torch.exp(0.35 * torch.randn(count, generator=generator))[:, None, None, None]
    mean = canvas.mean((1, 2, 3), keepdim=True)
    canvas = mean + (canvas - mean) * uniform(0.5, 1.3)
    canvas = canvas * torch.exp(0.1 * torch.randn(count, 3, generator=generator))[:, :, None, None]
    grain = torch.randn(canvas.shape, generator=generator) * uniform(0, 12)
    return (canvas + grain).clamp(0, 255)


def targets(canvases: Canvases) -> tuple[Tensor, Tensor, Tensor]:
    """What the maps should be: scores [B, h, w] (1 at centres, less around), weights of them [B, h, w], and values
    [B, 5, h, w]: offsets, size, roll, and whether this cell is to tell them."""
    count, cells = len(canvases.pictures), SIDE // STRIDE
    c = torch.arange(cells) + 0.5
    grid = torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)  # [h, w, 2] in cells
    score, weight = torch.zeros(count, cells, cells), torch.ones(count, cells, cells)
    values, nearest = torch.zeros(count, 5, cells, cells), torch.full((count, cells, cells), 1e9)
    for k in range(MOST):
        x, y, size, roll = canvases.faces[:, k].unbind(1)
        kind = canvases.counted[:, k]
        offset = torch.stack([x, y], 1)[:, None, None] / STRIDE - grid  # [B, h, w, 2]
        distance = offset.norm(dim=-1)
        reach = (size / STRIDE)[:, None, None]
        bump = torch.exp(-0.5 * (distance / (0.12 * reach).clamp_min(0.45)) ** 2) * (kind == 1)[:, None, None]
        score = torch.maximum(score, bump)
        weight = torch.where((kind == -1)[:, None, None] & (distance < 0.6 * reach), 0.0, weight)
        near = (distance < (0.2 * reach).clamp_min(1.0)) & (kind == 1)[:, None, None] & (distance < nearest)
        nearest = torch.where(near, distance, nearest)
        told = torch.stack([offset[..., 0], offset[..., 1],
                            torch.log(size.clamp_min(1) / USUAL_SIZE)[:, None, None].expand_as(distance),
                            roll[:, None, None].expand_as(distance), torch.ones_like(distance)], 1)  # fmt: skip
        values = torch.where(near[:, None], told, values)
    # the cell that holds a centre says 1
    for k in range(MOST):
        of = (canvases.counted[:, k] == 1).nonzero().flatten()
        column, row = (canvases.faces[of, k, :2] / STRIDE).long().clamp(0, cells - 1).unbind(1)
        score[of, row, column] = 1.0
        weight[of, row, column] = 1.0
    return score, weight, values


def locator_loss(maps: Tensor, canvases: Canvases) -> dict[str, Tensor]:
    """CenterNet's focal loss of the score, and L1 of the rest where there are faces."""
    score, weight, values = targets(canvases)
    logit, seen = maps[:, 0], maps[:, 0].sigmoid()
    hit = (score == 1).float()
    number = hit.sum().clamp_min(1)
    positive = -F.logsigmoid(logit) * (1 - seen) ** FOCUS * hit
    negative = -F.logsigmoid(-logit) * seen**FOCUS * (1 - score) ** 4 * (1 - hit)
    told = values[:, 4:]
    difference = (maps[:, 1:] - values[:, :4]).abs() * torch.tensor([0.5, 0.5, 1.0, 1.0])[None, :, None, None]
    return {
        "score": ((positive + negative) * weight).sum() / number,
        "place": (difference * told).sum() / told.sum().clamp_min(1),
    }
