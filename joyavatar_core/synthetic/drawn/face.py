"""The head without eyes and mouth: skin, ears, nose, age lines, beards, glasses and earrings."""

from __future__ import annotations

import numpy as np
import skia

from .characters import Character
from .drawing import DEPTH, Point, Turn, curve, fill, glow, linear, mirrored, radial, stroke, surface
from .palette import WHITE, colour, darker, deeper, lighter, mix

GOLD, FRAME = colour("E9BE5A"), colour("33262E")
MOUTH_Y = 22.5


def face_outline(turn: Turn, who: Character, jaw_drop: float) -> skia.Path:
    """The skin's silhouette; the chin follows the jaw (`jaw_drop` in 1/128) and lies nearer than the skull."""
    c, j = who.cheek, who.cheek * who.jaw
    right = [(0, -42), (c * 0.58, -38.5), (c * 0.92, -24), (c, -5), (c * 0.965, 9)]
    right += [(j, 22), (j * 0.74, 32), (who.chin, who.chin_y - 1.2), (0, who.chin_y)]
    points = []
    for x, y in mirrored(right):
        low = min(max((y - 9) / 31, 0.0), 1.0)
        points.append(turn.point(x, y + jaw_drop * low**1.5, DEPTH * (0.08 + 0.34 * low)))
    return curve(points)


def draw_ears(canvas: skia.Canvas, turn: Turn, who: Character) -> None:
    """Ears behind the face, and their earrings."""
    for side in (-1, 1):
        x, y = turn.point(side * (who.cheek + 1.2), 3.5, -3)
        canvas.save()
        canvas.translate(x, y)
        canvas.rotate(side * 8)
        canvas.drawOval(
            skia.Rect.MakeLTRB(-4.6, -7.5, 4.6, 7.5), fill(mix(who.skin.base, who.skin.shade, 0.25 + 0.1 * side))
        )
        canvas.drawOval(skia.Rect.MakeLTRB(-2.4 + side * 0.3, -4.8, 2.4 + side * 0.3, 4.6), fill(who.skin.shade, 0.75))
        canvas.restore()


def draw_earrings(canvas: skia.Canvas, turn: Turn, who: Character) -> None:
    """Hanging in front of the hair, so that they are seen."""
    if who.earrings == "none" or who.hair_style in ("headscarf", "long", "bob", "wavy"):
        return
    for side in (-1, 1):
        x, y = turn.point(side * (who.cheek + 2.4), 11, -2)
        if who.earrings == "hoop":
            canvas.drawCircle(x, y + 3.6, 3.5, stroke(GOLD, 1.1))
            continue
        if who.earrings == "drop":
            canvas.drawOval(skia.Rect.MakeLTRB(x - 1.5, y + 1.5, x + 1.5, y + 6.5), fill(who.scheme.accent))
        canvas.drawCircle(x, y, 1.5, fill(GOLD))


def draw_skin(canvas: skia.Canvas, turn: Turn, who: Character, outline: skia.Path) -> None:
    """Fill the face with light from the upper left; the caller has not clipped yet."""
    skin = who.skin
    canvas.drawPath(
        outline, radial((-9, -8), 62, lighter(skin.base, 0.22), skin.base, mix(skin.base, skin.shade, 0.85))
    )
    canvas.save()
    canvas.clipPath(outline, True)
    right_x, right_y = turn.point(who.cheek + 2, 12, 2)
    glow(canvas, right_x, right_y, 13, 42, skin.shade, 0.6)
    for side in (-1, 1):
        x, y = turn.on_face([(side * 19, 13.5)])[0]
        glow(canvas, x, y, 9.5, 6.5, mix(skin.lip, skin.base, 0.25), 0.62 * who.blush)
        glow(canvas, x - 1.5, y - 6, 6, 3.4, WHITE, 0.16)
    x, y = turn.on_face([(-3, -24)])[0]
    glow(canvas, x, y, 17, 9, WHITE, 0.14)
    if who.freckles:
        rng = np.random.default_rng(who.seed)
        spots = [(rng.normal(0, 1) * 5 + side * 15, rng.normal(10, 2.4)) for side in (-1, 1) for _ in range(9)]
        for x, y in turn.on_face(spots):
            canvas.drawCircle(x, y, 0.62, fill(mix(skin.shade, skin.lip, 0.3), 0.75))
    _draw_age(canvas, turn, who)
    canvas.restore()


def _draw_age(canvas: skia.Canvas, turn: Turn, who: Character) -> None:
    if who.age not in ("adult", "elder"):
        return
    old = who.age == "elder"
    line = darker(who.skin.shade, 0.22)
    for side in (-1, 1):
        fold = [(side * 8.6, 12.5), (side * 12.8, 17), (side * 16, 23.5)]
        canvas.drawPath(curve(turn.on_face(fold), closed=False), stroke(line, 0.85, 0.6 if old else 0.2))
        if not old:
            continue
        e = side * who.eye_gap
        bag = [(e - 5, who.eye_y + 7), (e, who.eye_y + 8.8), (e + 5, who.eye_y + 7)]
        canvas.drawPath(curve(turn.on_face(bag), closed=False), stroke(line, 0.7, 0.5))
        for dy in (-1.5, 2.5):
            foot = [(e + side * 8.6, who.eye_y + dy * 0.4), (e + side * 12.5, who.eye_y + dy * 1.2)]
            canvas.drawPath(curve(turn.on_face(foot), closed=False), stroke(line, 0.65, 0.5))
    if old:
        for y, half in ((-21, 11), (-25.5, 8)):
            forehead = [(-half, y + 0.6), (-half / 2, y - 0.5), (0, y + 0.2), (half / 2, y - 0.5), (half, y + 0.6)]
            canvas.drawPath(curve(turn.on_face(forehead), closed=False), stroke(line, 0.7, 0.4))


def draw_nose(canvas: skia.Canvas, turn: Turn, who: Character) -> None:
    """Draw the nose. It moves more than the face when the head turns."""
    k, skin = who.nose_size, who.skin
    half = {"button": 4.6, "straight": 4.8, "broad": 6.6, "long": 5.2}[who.nose] * k
    tip_y = {"button": 10.5, "straight": 11.5, "broad": 11.5, "long": 13.0}[who.nose]
    lift = {"button": 4.0, "straight": 5.0, "broad": 4.5, "long": 6.0}[who.nose] * k

    def at(x: float, y: float, out: float) -> Point:
        return turn.on_face([(x, y)], lift * out)[0]

    shadow = [at(2.0, -4, 0.2), at(2.4, 2, 0.6), at(half * 0.8, tip_y - 3, 0.7), at(half * 1.15, tip_y + 1, 0.4)]
    shadow += [at(half * 0.4, tip_y + 2.2, 0.8), at(1.2, tip_y - 2, 1), at(1.2, 2, 0.6)]
    canvas.drawPath(curve(shadow), fill(skin.shade, 0.55, blur=0.9))
    x, y = at(0, tip_y + 2.4, 0.6)
    glow(canvas, x, y + 0.6, half * 1.25, 2.6, darker(skin.shade, 0.15), 0.75)
    base = [at(-half, tip_y - 0.8, 0.3), at(-half * 0.75, tip_y + 1.5, 0.5), at(-half * 0.3, tip_y + 1.3, 0.9)]
    base += [at(0, tip_y + 2.3, 1), at(half * 0.3, tip_y + 1.3, 0.9), at(half * 0.75, tip_y + 1.5, 0.5)]
    base += [at(half, tip_y - 0.8, 0.3)]
    canvas.drawPath(curve(base, closed=False), stroke(darker(skin.shade, 0.32), 0.95, 0.85))
    x, y = at(-0.8, tip_y - 1.6, 1)
    glow(canvas, x, y, 2.6, 2.2, WHITE, 0.5)
    bridge = [at(-0.9, -3, 0.2), at(-0.9, tip_y - 4, 0.9)]
    canvas.drawPath(curve(bridge, closed=False), stroke(lighter(skin.base, 0.6), 1.5, 0.35, blur=0.7))


def draw_beard(canvas: skia.Canvas, turn: Turn, who: Character, jaw_drop: float, outline: skia.Path) -> None:
    """Moustache and beard, drawn before the mouth."""
    if who.beard == "none":
        return
    c, j, low = who.cheek, who.cheek * who.jaw, who.chin_y + jaw_drop
    hair = mix(who.hair, darker(who.skin.base, 0.3), 0.12)
    lip_gap = [(7, MOUTH_Y + 5.5 + jaw_drop), (0, MOUTH_Y + 6.5 + jaw_drop), (-7, MOUTH_Y + 5.5 + jaw_drop)]
    if who.beard == "stubble":
        canvas.save()
        canvas.clipPath(outline, True)
        area = curve(turn.on_face([(c, 8), (18, 17), (0, 15.5), (-18, 17), (-c, 8), (-j, 30), (0, low + 6), (j, 30)]))
        canvas.drawPath(area, fill(mix(hair, who.skin.shade, 0.35), 0.36, blur=2.2))
        canvas.restore()
        return
    if who.beard == "full":
        rim = [(c + 0.8, -2), (c - 3.5, 8), (20, 17), (10, 16.2), (0, 17.2), (-10, 16.2), (-20, 17), (-c + 3.5, 8)]
        rim += [(-c - 0.8, -2), (-c + 0.2, 12), (-j - 1.5, 26), (-14, low + 3.5), (0, low + 6), (14, low + 3.5)]
        rim += [(j + 1.5, 26), (c - 0.2, 12)]
        low_depth = 8.0
    elif who.beard == "goatee":
        rim = [
            (8, 18.2),
            (0, 17.2),
            (-8, 18.2),
            (-16.5, 22),
            (-15, 32),
            (-9, low),
            (0, low + 4),
            (9, low),
            (15, 32),
            (16.5, 22),
        ]
        low_depth = 10.0
    else:
        rim = [
            (0, 16.4),
            (7, 15.4),
            (15, 19.5),
            (19.5, 24),
            (10, 20.8),
            (0, 19.8),
            (-10, 20.8),
            (-19.5, 24),
            (-15, 19.5),
            (-7, 15.4),
        ]
        low_depth = 0.0
    shape = curve([turn.point(x, y, _beard_depth(x, y, low_depth)) for x, y in rim])
    canvas.drawPath(shape, linear((-20, 8), (16, 48), lighter(hair, 0.14), deeper(hair, 0.4)))
    if low_depth:
        x, y = turn.on_face([(0, lip_gap[1][1])])[0]
        glow(canvas, x, y, 9, 3.4, deeper(hair, 0.5), 0.6)


def _beard_depth(x: float, y: float, least: float) -> float:
    return max(surface(x, y), least if y > 25 else 0.0)


def draw_glasses(canvas: skia.Canvas, turn: Turn, who: Character) -> None:
    """Frames in front of the eyes, with a reflection."""
    if who.glasses == "none":
        return
    y, gap = who.eye_y + 1, who.eye_gap
    frame = stroke(FRAME if who.seed % 3 else mix(GOLD, FRAME, 0.25), 1.5)
    for side in (-1, 1):
        canvas.save()
        canvas.concat(turn.tangent(side * gap, y, lift=4))
        if who.glasses == "round":
            lens = skia.Path.Circle(0, 0, 10.6)
        elif who.glasses == "square":
            lens = skia.Path.RRect(skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(-10.8, -8, 10.8, 9), 3.6, 3.6))
        else:
            lens = curve([(side * a, b) for a, b in ((-10, -5), (0, -7.5), (14, -10), (11.5, 2), (4, 8.5), (-6, 7.5))])
        canvas.drawPath(lens, fill(WHITE, 0.1))
        canvas.save()
        canvas.clipPath(lens, True)
        canvas.drawLine(-4, -9, -10, 4, stroke(WHITE, 2.4, 0.22))
        canvas.restore()
        canvas.drawPath(lens, frame)
        canvas.restore()
        hinge, temple = turn.on_face([(side * (gap + 10.2), y - 2)], 4)[0], turn.point(side * (who.cheek + 1), y - 2, 0)
        canvas.drawLine(*hinge, *temple, frame)
    left, middle, right = (turn.on_face([(x, y - d)], 5)[0] for x, d in ((-gap + 10, 1), (0, 3), (gap - 10, 1)))
    canvas.drawPath(curve([left, middle, right], closed=False), frame)
