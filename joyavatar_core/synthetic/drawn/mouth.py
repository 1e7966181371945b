"""The mouth: lips, teeth, tongue and the dark between them, from a few parameters."""

from __future__ import annotations

from typing import NamedTuple

import skia

from ..moment import MouthShape
from .characters import Character
from .drawing import argb, fill, glow, linear, stroke
from .palette import WHITE, colour, darker, deeper, lighter, mix

MAX_GAP = 15.0  # between the lips at full opening, in 1/128 of the picture's side
DARK, THROAT, TONGUE, TEETH = map(colour, ("1C0209", "4E0C1B", "CB565E", "FAFAF7"))


class MouthGeometry(NamedTuple):
    """The mouth's curves around (0, 0), y down: half width, height of the corners, middles of the four edges."""

    half_width: float
    corner: float
    upper_outer: float
    upper_inner: float
    lower_inner: float
    lower_outer: float

    @property
    def gap(self) -> float:
        """Distance between the lips."""
        return self.lower_inner - self.upper_inner


def geometry(character: Character, shape: MouthShape, smile: float) -> MouthGeometry:
    """Where the lips are; `smile` is -1 (sad) .. 1."""
    gap = MAX_GAP * max(shape.open, 0.0)
    width = character.mouth_width * (1 + 0.15 * shape.spread + 0.1 * max(smile, 0) - 0.36 * shape.round)
    thickness = character.lip_weight * (1 + 0.4 * shape.round) * (1 - 0.4 * shape.press)
    upper_inner, lower_inner = -0.24 * gap - 0.5 * shape.round, 0.76 * gap - 0.5 * shape.round
    tuck = shape.tuck * min(1.0, 0.5 + gap / 4)
    return MouthGeometry(
        half_width=width,
        corner=-0.9 - 2.9 * smile + 0.14 * gap,  # the corners of a face at rest turn up a little
        upper_outer=upper_inner - 2.7 * thickness,
        upper_inner=upper_inner,
        lower_inner=lower_inner,
        lower_outer=lower_inner + 3.5 * thickness * (1 - 0.3 * tuck),
    )


def _edge(path: skia.Path, x0: float, y0: float, x1: float, y1: float, middle: float, fullness: float) -> None:
    """Continue the path from one corner to the other, through `middle` at x = 0."""
    y = (8 * middle - y0 - y1) / 6
    path.cubicTo(x0 * fullness, y, x1 * fullness, y, x1, y1)


def draw_mouth(canvas: skia.Canvas, character: Character, shape: MouthShape, smile: float) -> MouthGeometry:
    """Draw around (0, 0) and return the curves as drawn."""
    g = geometry(character, shape, smile)
    w, c, skin = g.half_width, g.corner, character.skin
    bare = not character.feminine or character.age == "child"
    lip = mix(skin.lip, skin.base, 0.42 if bare else 0.0)
    shade = deeper(character.hair, 0.3) if character.beard in ("full", "goatee") else skin.shade
    fullness = 0.52 + 0.34 * shape.round

    lips = skia.Path()
    lips.moveTo(-w, c)
    rise, peak = c + 0.62 * (g.upper_outer - c), 0.2 * w
    dip = g.upper_outer + 0.9 * (1 - shape.round)
    lips.cubicTo(-w * (0.72 + 0.2 * shape.round), rise, -w * 0.45, g.upper_outer, -peak, g.upper_outer)
    lips.quadTo(-peak * 0.4, g.upper_outer, 0, dip)
    lips.quadTo(peak * 0.4, g.upper_outer, peak, g.upper_outer)
    lips.cubicTo(w * 0.45, g.upper_outer, w * (0.72 + 0.2 * shape.round), rise, w, c)
    _edge(lips, w, c, -w, c, g.lower_outer, fullness + 0.04)
    lips.close()

    glow(canvas, 0, g.lower_outer + 1.6, w * 0.7, 3.2, shade, 0.75)
    body = linear((0, g.upper_outer), (0, g.lower_outer), darker(lip, 0.12), lip, lighter(lip, 0.16))
    canvas.drawPath(lips, body)

    i = w * 0.93
    inner = skia.Path()
    inner.moveTo(-i, c)
    _edge(inner, -i, c, i, c, g.upper_inner, fullness)
    if g.gap > 0.5:
        _edge(inner, i, c, -i, c, g.lower_inner, fullness)
        inner.close()
        _draw_inside(canvas, inner, g, shape)
        canvas.drawPath(inner, stroke(darker(lip, 0.55), 0.5, 0.6))
    else:
        canvas.drawPath(inner, stroke(darker(lip, 0.6), 0.95, 0.9))
    for side in (-1, 1):
        glow(canvas, side * (w + 0.3), c - 0.4, 2.2, 1.7, darker(shade, 0.25), 0.55)
    shine = 0.12 if bare else 0.4
    glow(canvas, -0.12 * w, (g.lower_inner + g.lower_outer) / 2 + 0.1, w * 0.36, 1.3, WHITE, shine)
    return g


def _draw_inside(canvas: skia.Canvas, inner: skia.Path, g: MouthGeometry, shape: MouthShape) -> None:
    canvas.save()
    canvas.clipPath(inner, True)
    canvas.drawPaint(linear((0, g.upper_inner), (0, g.lower_inner + 1), DARK, THROAT))
    w, jaw = g.half_width, g.lower_inner
    tongue_y = jaw - 0.06 * g.gap + (1 - shape.tongue) * 0.9
    tongue_y += shape.tongue * (1.6 - tongue_y) * 0.75
    tongue = fill(TONGUE)
    tongue.setShader(linear((0, tongue_y - 3), (0, tongue_y + 3), TONGUE, darker(TONGUE, 0.3)).getShader())
    canvas.drawOval(skia.Rect.MakeXYWH(-0.58 * w, tongue_y - 0.24 * g.gap - 1, 1.16 * w, 0.6 * g.gap + 5), tongue)

    span = w * 0.72
    lower = 1.6 + 0.82 * jaw * (1 - shape.teeth)
    canvas.drawRRect(
        skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(-0.86 * span, lower, 0.86 * span, lower + 6), 2.2, 2),
        fill(darker(TEETH, 0.12)),
    )
    upper = skia.Rect.MakeLTRB(
        -span, g.upper_inner - 5, span, min(1.2, g.upper_inner + 4.2)
    )  # they stay where the skull is
    canvas.drawRRect(skia.RRect.MakeRectXY(upper, 2.6, 1.8), fill(TEETH))
    lip_shadow = skia.GradientShader.MakeLinear(
        [(0, g.upper_inner - 0.3), (0, g.upper_inner + 1.6)], [argb(DARK, 0.35), argb(DARK, 0)]
    )
    canvas.drawPaint(skia.Paint(Shader=lip_shadow))
    canvas.restore()
