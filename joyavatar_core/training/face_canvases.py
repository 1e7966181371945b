"""Canvases with people whose face positions are known exactly: training data of the face locator and the person
finder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framing.face_locator import CENTRE_DEPTH, HEIGHT, SIZES

SIDE = 128  # pixels of a canvas
FACE_SIZES = (9.0, 110.0)  # pixels: faces on canvases, also smaller and larger ones than are to be found
PORTRAIT_FACES = (30.0, 120.0)  # likewise, where each is that of a portrait
OTHERS, OTHER_FACES = 0.2, (12.0, 50.0)  # share of portraits with somebody else behind, and the size of that face
STRIPED, STRIPES = 0.35, (3.0, 50.0)  # share of portraits before stripes, and their period in pixels
ALIKE = 0.2  # share of portraits before the colour of hair, skin or clothes
MOST = 4  # people on a canvas
TILT = 0.2  # radians: the deviation of a head's roll
SHARES = (0.12, 0.5, 0.2, 0.1, 0.08)  # of canvases with none, one, two ... people
INSIDE = 0.8  # share of faces that are placed so that they are on the canvas as a whole
MOST_ROLL = 0.7  # radians
DISTRACTORS, DISTRACTED = 3, (0.3, 0.5)  # counts, and shares of canvases with people and pieces of pictures
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
    canvas = _background(backgrounds, count, generator)
    for _ in range(DISTRACTORS):
        _distract(canvas, people, backgrounds, generator)
    number = torch.multinomial(torch.tensor(SHARES), count, True, generator=generator)
    faces, counted = torch.zeros(count, MOST, 4), torch.zeros(count, MOST, dtype=torch.long)
    hidden = torch.zeros(count, MOST)
    for k in range(MOST):
        shown = (number > k).nonzero().flatten()
        if not len(shown):
            break
        layer, found = _layer(people, len(shown), generator)
        alpha = layer[:, 3:] / 255
        canvas[shown] = canvas[shown] * (1 - alpha) + layer[:, :3]
        faces[shown, k], counted[shown, k] = found, 1
        within = (_grid() - faces[shown, : k + 1, None, None, :2]).abs().amax(-1)  # [n, k + 1, H, W]
        within = (within < faces[shown, : k + 1, 2, None, None] / 2).float()
        area = faces[shown, : k + 1, 2].square()
        hidden[shown, :k] += (within[:, :k] * alpha).sum((2, 3)) / area[:, :k]
        hidden[shown, k] = 1 - within[:, k].sum((1, 2)) / area[:, k]  # beyond the canvas
    size, roll = faces[..., 2], faces[..., 3].abs()
    doubtful = (size < SIZES[0] * 1.1) | (size > SIZES[1] / 1.1) | (hidden > HIDDEN) | (roll > MOST_ROLL)
    counted[(counted == 1) & doubtful] = -1
    return Canvases(_photographed(canvas, generator) / 127.5 - 1, faces, counted)


def portraits(
    people: Cutouts, backgrounds: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Canvases with one large face each: pictures and faces [B, 4] as in `Canvases`; the people's opacity
    [B, 1, SIDE, SIDE] in 0 ... 1. Others, who are behind them, are background."""
    canvas = _striped(_background(backgrounds, count, generator), generator)
    _distract(canvas, people, backgrounds, generator)
    for k in (torch.rand(count, generator=generator) < OTHERS).nonzero().flatten().tolist():
        other, _ = _layer(people, 1, generator, OTHER_FACES)
        canvas[k] = canvas[k] * (1 - other[0, 3:] / 255) + other[0, :3]
    layer, faces = _layer(people, count, generator, PORTRAIT_FACES)
    alpha = layer[:, 3:] / 255
    canvas = _alike(canvas, layer, generator)
    canvas = canvas * (1 - alpha) + layer[:, :3]
    return _photographed(canvas, generator) / 127.5 - 1, faces, alpha


def _grid() -> Tensor:
    """Pixels' centres, [SIDE, SIDE, 2]: x and y."""
    c = torch.arange(SIDE) + 0.5
    return torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)


def _distract(canvas: Tensor, people: Cutouts, backgrounds: Tensor, generator: torch.Generator) -> None:
    """Add objects that are not faces to some canvases: people upside down or without a face, pieces of backgrounds."""
    count = len(canvas)
    kind = torch.rand(count, generator=generator)
    turned = (kind < DISTRACTED[0]).nonzero().flatten()
    if len(turned):
        layer, (x, y, size, _) = _with_columns(_layer(people, len(turned), generator))
        upside = torch.rand(len(turned), generator=generator) < 0.4
        blank = F.interpolate(F.avg_pool2d(layer, 16), scale_factor=16, mode="bilinear", align_corners=False)
        grain = 1 + 0.15 * torch.randn(len(turned), 1, SIDE, SIDE, generator=generator)
        blank[:, :3] *= grain * torch.exp(-0.7 * torch.rand(len(turned), 1, 1, 1, generator=generator))
        centre = torch.stack([x, y], 1)[:, None, None]
        within = ((_grid() - centre).norm(dim=-1) < 0.55 * size[:, None, None])[:, None]  # hair, or a hand, before it
        layer = torch.where(upside[:, None, None, None], layer.flip(2), torch.where(within, blank, layer))
        canvas[turned] = canvas[turned] * (1 - layer[:, 3:] / 255) + layer[:, :3]
    pieces = (kind > 1 - DISTRACTED[1]).nonzero().flatten()
    if len(pieces):
        other = _background(backgrounds, len(pieces), generator)
        at, reach = (SIDE * torch.rand(len(pieces), 2, generator=generator) for _ in range(2))
        offset = (_grid() - at[:, None, None]) / (4 + reach / 3)[:, None, None]  # [n, H, W, 2] in half sizes
        power = torch.randint(1, 4, (len(pieces), 1, 1), generator=generator) * 2
        shape = (offset.abs() ** power[..., None]).sum(-1)[:, None] < 1  # ellipses to rectangles
        canvas[pieces] = torch.where(shape, other, canvas[pieces])


def _with_columns(layer: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    return layer[0], layer[1].unbind(1)


def _layer(
    people: Cutouts, count: int, generator: torch.Generator, sizes: tuple[float, float] = FACE_SIZES
) -> tuple[Tensor, Tensor]:
    """One person each, anywhere: layers [n, 4, SIDE, SIDE] as Cutouts' pictures, float, and faces [n, 4].

    sizes: of the faces, in pixels.
    """
    who = torch.randint(len(people), (count,), generator=generator)
    own = face_of(people.points[who])  # in the cut-out's pixels
    low, high = (math.log(size) for size in sizes)
    wanted = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
    scale = wanted / own[:, 2]  # pixels of the canvas for one of the cut-out
    tilt = TILT * torch.randn(count, generator=generator)
    mirror = (torch.randint(2, (count,), generator=generator) * 2 - 1).float()
    at = SIDE * torch.rand(count, 2, generator=generator)
    inside = torch.rand(count, generator=generator) < INSIDE
    at = torch.where(inside[:, None], _inside(at, wanted), at)
    squeeze = mirror * torch.exp(0.06 * torch.randn(count, generator=generator))
    cos, sin = torch.cos(tilt), torch.sin(tilt)
    back = torch.stack([cos / squeeze, sin / squeeze, -sin, cos], 1).view(-1, 2, 2) / scale[:, None, None]
    place = (_grid() - at[:, None, None]) @ back.transpose(1, 2)[:, None] + own[:, None, None, :2]
    side = people.pictures.shape[-1]
    place[..., 1] = place[..., 1].clamp(max=side - 1.0)  # below a cut-out its last row is repeated
    halvings = torch.floor(-torch.log2(scale)).clamp(0, 3).long()
    layer = torch.empty(count, 4, SIDE, SIDE)
    for step in halvings.unique().tolist():
        of = (halvings == step).nonzero().flatten()
        pictures = F.avg_pool2d(people.pictures[who[of]].float(), 2**step)
        layer[of] = F.grid_sample(pictures, place[of] * (2 / side) - 1, align_corners=False)
    roll = mirror * own[:, 3] + tilt
    return _recoloured(layer, generator), torch.stack([at[:, 0], at[:, 1], wanted, roll], 1)


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


def _striped(canvas: Tensor, generator: torch.Generator) -> Tensor:
    """Canvases, some of which have stripes such as those of curtains, flags and blinds."""
    count = len(canvas)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    x, y = _grid().unbind(-1)
    angle, period = uniform(0, math.pi), torch.exp(uniform(math.log(STRIPES[0]), math.log(STRIPES[1])))
    wave = torch.sin((x * torch.cos(angle) + y * torch.sin(angle)) * (2 * math.pi / period) + uniform(0, 2 * math.pi))
    wave = (wave * torch.exp(uniform(0, 2))).clamp(-1, 1)  # with soft edges or hard ones
    depth = uniform(0.1, 0.8) * (torch.rand(count, 1, 1, generator=generator) < STRIPED)
    return (canvas * (1 + (depth * wave)[:, None])).clamp(0, 255)


def _alike(canvas: Tensor, layer: Tensor, generator: torch.Generator) -> Tensor:
    """Canvases, some of which have about the colour of a part of the person that stands before them."""
    count = len(canvas)
    at = torch.multinomial(layer[:, 3].flatten(1).square() + 1e-3, 1, generator=generator)
    colour = layer[:, :3].flatten(2).gather(2, at[:, None].expand(-1, 3, -1))[..., None]
    mean = canvas.mean((2, 3), keepdim=True)
    alike = torch.rand(count, 1, 1, 1, generator=generator) < ALIKE
    return torch.where(alike, ((canvas - mean) * 0.6 + colour).clamp(0, 255), canvas)


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
    canvas = (
        255
        * (canvas.clamp(0, 255) / 255) ** torch.exp(0.35 * torch.randn(count, generator=generator))[:, None, None, None]
    )
    mean = canvas.mean((1, 2, 3), keepdim=True)
    canvas = mean + (canvas - mean) * uniform(0.5, 1.3)
    canvas = canvas * torch.exp(0.1 * torch.randn(count, 3, generator=generator))[:, :, None, None]
    grain = torch.randn(canvas.shape, generator=generator) * uniform(0, 12)
    return (canvas + grain).clamp(0, 255)
