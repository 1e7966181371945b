"""Brushes and the turning head: smooth paths, gradients, and points that shift with yaw and pitch by their depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import skia

from .palette import Colour

Point = tuple[float, float]

# The head is an ellipsoid (half width, half height, depth) in units of 1/128 of the picture's side.
HALF_WIDTH, HALF_HEIGHT, DEPTH = 35.0, 49.0, 25.0
NECK = 44.0  # the roll's pivot below the centre of the head


def argb(c: Colour, alpha: float = 1.0) -> int:
    """The colour as a 32-bit integer."""
    return skia.Color(*c, round(255 * min(max(alpha, 0.0), 1.0)))


def fill(c: Colour, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A flat brush; `blur` is the sigma of its soft edge."""
    paint = skia.Paint(AntiAlias=True, Color=argb(c, alpha))
    if blur:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    return paint


def stroke(c: Colour, width: float, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A round pen."""
    paint = fill(c, alpha, blur)
    paint.setStyle(skia.Paint.kStroke_Style)
    paint.setStrokeWidth(width)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


def linear(a: Point, b: Point, *colours: Colour) -> skia.Paint:
    """A brush that changes from `a` to `b`."""
    return skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeLinear([a, b], [argb(c) for c in colours]))


def radial(centre: Point, radius: float, *colours: Colour) -> skia.Paint:
    """A brush that changes from the centre outwards."""
    return skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeRadial(centre, radius, [argb(c) for c in colours]))


def glow(canvas: skia.Canvas, x: float, y: float, rx: float, ry: float, c: Colour, alpha: float) -> None:
    """A soft spot that fades to nothing at its rim (cheaper than a blur)."""
    canvas.save()
    canvas.translate(x, y)
    canvas.scale(rx, ry)
    colours = [argb(c, alpha), argb(c, alpha * 0.55), argb(c, 0)]
    shader = skia.GradientShader.MakeRadial((0, 0), 1, colours, [0.0, 0.5, 1.0])
    canvas.drawCircle(0, 0, 1, skia.Paint(AntiAlias=True, Shader=shader))
    canvas.restore()


def curve(points: Sequence[Point], closed: bool = True, tension: float = 1 / 6) -> skia.Path:
    """A smooth path through the points (Catmull-Rom); a point given twice in a row is a corner."""
    n = len(points)
    path = skia.Path()
    path.moveTo(*points[0])
    for i in range(n if closed else n - 1):
        if closed:
            p0, p1, p2, p3 = points[i - 1], points[i], points[(i + 1) % n], points[(i + 2) % n]
        else:
            p0, p1, p2, p3 = points[max(i - 1, 0)], points[i], points[i + 1], points[min(i + 2, n - 1)]
        if p1 == p2:
            continue
        path.cubicTo(
            p1[0] + (p2[0] - p0[0]) * tension,
            p1[1] + (p2[1] - p0[1]) * tension,
            p2[0] - (p3[0] - p1[0]) * tension,
            p2[1] - (p3[1] - p1[1]) * tension,
            p2[0],
            p2[1],
        )
    if closed:
        path.close()
    return path


def mirrored(right: Sequence[Point]) -> list[Point]:
    """A symmetric outline from its right half, given from top to bottom."""
    return [*right, *((-x, y) for x, y in reversed(right) if abs(x) > 1e-6)]


class Turn(NamedTuple):
    """A head's rotation, ready for projecting: sines and cosines of yaw and pitch."""

    sin_yaw: float
    cos_yaw: float
    sin_pitch: float
    cos_pitch: float

    @classmethod
    def of(cls, yaw: float, pitch: float) -> Turn:
        """From angles in radians; positive looks to the picture's right and up."""
        return cls(math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch))

    def point(self, x: float, y: float, z: float) -> Point:
        """Orthographic image of a point of the head."""
        depth = z * self.cos_yaw - x * self.sin_yaw
        return x * self.cos_yaw + z * self.sin_yaw, y * self.cos_pitch - depth * self.sin_pitch

    def on_face(self, points: Iterable[Point], lift: float = 0.0) -> list[Point]:
        """Images of points that lie on the head's surface, `lift` above it."""
        return [self.point(x, y, surface(x, y) + lift) for x, y in points]

    def flat(self, points: Iterable[Point], z: float) -> list[Point]:
        """Images of points of an upright plane at depth `z`."""
        return [self.point(x, y, z) for x, y in points]

    def tangent(self, x: float, y: float, lift: float = 0.0) -> skia.Matrix:
        """The affine map that carries a small drawing around (0, 0) onto the head's surface at (x, y)."""
        z = max(surface(x, y), 0.35 * DEPTH)
        zx, zy = -(DEPTH**2) * x / (HALF_WIDTH**2 * z), -(DEPTH**2) * y / (HALF_HEIGHT**2 * z)
        px, py = self.point(x, y, surface(x, y) + lift)
        return skia.Matrix.MakeAll(
            self.cos_yaw + zx * self.sin_yaw,
            zy * self.sin_yaw,
            px,
            (self.sin_yaw - zx * self.cos_yaw) * self.sin_pitch,
            self.cos_pitch - zy * self.cos_yaw * self.sin_pitch,
            py,
            0,
            0,
            1,
        )


def surface(x: float, y: float) -> float:
    """Depth of the head at (x, y); 0 on its rim and outside."""
    return DEPTH * math.sqrt(max(0.0, 1 - (x / HALF_WIDTH) ** 2 - (y / HALF_HEIGHT) ** 2))
