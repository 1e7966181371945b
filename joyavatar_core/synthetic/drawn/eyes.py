"""Eyes, lids, lashes and brows."""

from __future__ import annotations

import math

import skia

from .characters import Character
from .drawing import Turn, fill, glow, radial, stroke
from .palette import WHITE, Colour, colour, darker, lighter, mix

INK = colour("2B1A22")
SCLERA = colour("FBF8F4")


def _lid(w: float, inner_y: float, outer_y: float, height: float, side: int) -> skia.Path:
    """The edge of a lid from the inner to the outer corner, `height` above (negative) the line between them."""
    path = skia.Path()
    path.moveTo(-side * w, inner_y)
    path.cubicTo(-side * w * 0.6, inner_y + height, side * w * 0.42, outer_y + height * 1.12, side * w, outer_y)
    return path


def _draw_eye(
    canvas: skia.Canvas, who: Character, side: int, lid: float, squint: float, gaze: tuple[float, float]
) -> None:
    size = who.eye_size
    w, up, low = 6.5 * size, -8.6 * size, 4.8 * size * (1 - 0.45 * squint)
    inner_y, outer_y = 0.8, 0.2 - 12 * who.eye_tilt * size
    height = low * 0.85 + (up - low * 0.85) * lid  # closed, the upper lid rests on the lower
    upper = _lid(w, inner_y, outer_y, height, side)
    skin = who.skin

    if who.age != "child":
        crease = _lid(w * 0.95, inner_y - 1.2, outer_y - 1.6, min(height, up * 0.55) - 1.3 * size, side)
        canvas.drawPath(crease, stroke(darker(skin.shade, 0.15), 0.7, 0.75))
    socket = _lid(w, inner_y, outer_y, up, side)
    socket.cubicTo(side * w * 0.5, outer_y + low, -side * w * 0.5, inner_y + low, -side * w, inner_y)
    if lid < 0.8:
        canvas.drawPath(socket, fill(mix(skin.base, skin.shade, 0.35)))
    if lid > 0.12:
        opening = _lid(w, inner_y, outer_y, height, side)
        opening.cubicTo(side * w * 0.5, outer_y + low, -side * w * 0.5, inner_y + low, -side * w, inner_y)
        canvas.save()
        canvas.clipPath(opening, True)
        canvas.drawPaint(fill(SCLERA))
        _draw_iris(canvas, who.eyes, 4.5 * size, gaze[0] * 3.0 * size, -0.9 * size - gaze[1] * 2.2 * size)
        canvas.drawPath(upper, stroke(darker(skin.shade, 0.5), 3.4 * size, 0.3))
        canvas.restore()
        lower = _lid(w * 0.92, inner_y, outer_y, low, side)
        canvas.drawPath(lower, stroke(darker(skin.shade, 0.3), 0.55, 0.6))
    _draw_lashes(canvas, who, side, w, inner_y, outer_y, height, lid)


def _draw_iris(canvas: skia.Canvas, c: Colour, r: float, x: float, y: float) -> None:
    canvas.translate(x, y)
    canvas.drawCircle(0, 0, r, fill(darker(c, 0.62)))
    canvas.drawCircle(0, 0.2, r * 0.88, radial((0, r * 0.55), r * 1.25, lighter(c, 0.4), c, darker(c, 0.45)))
    canvas.drawCircle(0, 0, r * 0.47, fill(INK))
    canvas.drawCircle(-r * 0.36, -r * 0.36, r * 0.29, fill(WHITE, 0.96))
    canvas.drawCircle(r * 0.38, r * 0.42, r * 0.14, fill(WHITE, 0.6))


def _draw_lashes(
    canvas: skia.Canvas, who: Character, side: int, w: float, inner_y: float, outer_y: float, height: float, lid: float
) -> None:
    thick = 0.9 + 0.75 * who.lashes
    lash = _lid(w, inner_y, outer_y, height, side)
    tip = side * (w + 0.5 + 1.1 * who.lashes)
    lash.lineTo(tip, outer_y - (1.5 * lid - 0.6) * who.lashes)
    lash.cubicTo(
        side * w * 0.5,
        outer_y + height * 1.12 - thick * 1.5,
        -side * w * 0.6,
        inner_y + height - thick,
        -side * w,
        inner_y,
    )
    lash.close()
    canvas.drawPath(lash, fill(mix(INK, who.hair, 0.2)))


def draw_eyes(
    canvas: skia.Canvas, turn: Turn, who: Character, lid: float, squint: float, gaze: tuple[float, float]
) -> None:
    """Both eyes, alike: `lid` 0 closed .. 1 open .. 1.2 wide; `gaze` -1..1 to the right and up."""
    for side in (-1, 1):
        canvas.save()
        canvas.concat(turn.tangent(side * who.eye_gap, who.eye_y))
        glow(canvas, 0, -1.5, 9.5, 8.5, who.skin.shade, 0.42)
        _draw_eye(canvas, who, side, lid, squint, gaze)
        canvas.restore()


def draw_brows(canvas: skia.Canvas, turn: Turn, who: Character, lift: float, worry: float) -> None:
    """Both brows: `lift` -1 lowered .. 1 raised; `worry` raises (or, below 0, lowers) their inner ends."""
    hair = who.hair if who.age == "elder" else mix(darker(who.hair, 0.25), who.skin.shade, 0.18)
    if who.age == "elder":
        hair = mix(hair, who.skin.shade, 0.3)
    for side in (-1, 1):
        canvas.save()
        y = who.eye_y - 10.4 * who.eye_size - 1.6 - 3.3 * lift
        canvas.concat(turn.tangent(side * (who.eye_gap + 0.3), y))
        canvas.rotate(math.degrees(side * (0.05 + 0.3 * worry)))
        w, t = 7.2, 1.25 * who.brow_weight
        brow = skia.Path()
        brow.moveTo(-side * w, 0.8)
        brow.cubicTo(-side * w * 0.4, -1.6 - t, side * w * 0.35, -2.4 - t, side * w * 1.05, 0.6)
        brow.cubicTo(side * w * 0.4, -1.2, -side * w * 0.3, -0.4 + 0.4 * t, -side * w * 0.92, 0.9 + t)
        brow.close()
        canvas.drawPath(brow, fill(hair, 0.95))
        canvas.restore()
