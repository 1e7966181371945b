"""Backgrounds, shoulders and clothes."""

from __future__ import annotations

import numpy as np
import skia

from .characters import Character
from .drawing import curve, fill, glow, linear, radial, stroke
from .palette import WHITE, Colour, darker, deeper, lighter, mix

SIDE = 128.0


def draw_backdrop(canvas: skia.Canvas, who: Character) -> None:
    """Fill the whole picture (0..128) with the character's surroundings, softer than the person."""
    scheme, rng = who.scheme, np.random.default_rng(who.seed)
    canvas.drawPaint(linear((20, 0), (100, SIDE), scheme.top, scheme.bottom))
    quiet = mix(scheme.accent, scheme.bottom, 0.45)
    if who.backdrop == "halo":
        canvas.drawCircle(64, 62, 53, fill(mix(scheme.accent, scheme.top, 0.35)))
        canvas.drawCircle(64, 62, 44, fill(mix(scheme.accent, scheme.top, 0.55)))
    elif who.backdrop == "bokeh":
        for _ in range(16):
            x, y, r = rng.uniform(0, SIDE), rng.uniform(0, 100), rng.uniform(4, 14)
            c = scheme.accent if rng.random() < 0.4 else WHITE
            canvas.drawCircle(x, y, r, fill(c, rng.uniform(0.1, 0.3), blur=0.8))
    elif who.backdrop == "window":
        x = 6 if rng.random() < 0.5 else 78
        frame = skia.Rect.MakeXYWH(x, 8, 44, 62)
        canvas.drawRect(frame, linear((x, 8), (x, 70), lighter(scheme.top, 0.75), mix(scheme.accent, scheme.top, 0.5)))
        for rect in (skia.Rect.MakeXYWH(x + 20.5, 8, 3, 62), skia.Rect.MakeXYWH(x, 36, 44, 3)):
            canvas.drawRect(rect, fill(lighter(scheme.bottom, 0.35)))
        canvas.drawRect(frame, stroke(lighter(scheme.bottom, 0.35), 3))
        canvas.drawRect(skia.Rect.MakeXYWH(x - 4, 70, 52, 4), fill(lighter(scheme.bottom, 0.2)))
    elif who.backdrop == "shelf":
        _draw_shelves(canvas, who, rng)
    elif who.backdrop == "leaves":
        for _ in range(9):
            _draw_leaf(canvas, rng, quiet)
    elif who.backdrop == "hills":
        canvas.drawCircle(rng.uniform(18, 110), 26, 13, fill(mix(scheme.accent, scheme.top, 0.3)))
        for level, share in ((62, 0.25), (78, 0.5), (96, 0.8)):
            heights = [(x, level + rng.uniform(-9, 9)) for x in range(-20, 160, 28)]
            ridge = curve([(-20, 140), (-20, 140), *heights, (148, 140), (148, 140)])
            canvas.drawPath(ridge, fill(mix(scheme.top, darker(scheme.bottom, 0.12), share)))
    elif who.backdrop == "stripes":
        for x in range(-8, 136, 24):
            canvas.drawRect(skia.Rect.MakeXYWH(x, 0, 12, SIDE), fill(scheme.accent, 0.16))
    glow(canvas, 40, 20, 90, 80, WHITE, 0.22)


def _draw_shelves(canvas: skia.Canvas, who: Character, rng: np.random.Generator) -> None:
    scheme = who.scheme
    for y in (34, 72):
        x = 2.0
        while x < 124:
            w, h = rng.uniform(4, 8), rng.uniform(13, 23)
            c = (scheme.accent, scheme.top, scheme.trim, scheme.cloth)[int(rng.integers(4))]
            if rng.random() < 0.85:
                canvas.drawRect(skia.Rect.MakeXYWH(x, y - h, w, h), fill(mix(c, scheme.bottom, 0.55)))
            x += w + 0.8
        canvas.drawRect(skia.Rect.MakeXYWH(0, y, SIDE, 3.5), fill(darker(scheme.bottom, 0.25)))


def _draw_leaf(canvas: skia.Canvas, rng: np.random.Generator, c: Colour) -> None:
    canvas.save()
    canvas.translate(rng.choice((-4, 132)) + rng.uniform(-8, 8), rng.uniform(10, 128))
    canvas.rotate(rng.uniform(0, 360))
    canvas.drawPath(curve([(0, 0), (0, 0), (12, -9), (30, 0), (30, 0), (12, 9)]), fill(c, 0.75))
    canvas.drawLine(0, 0, 27, 0, stroke(darker(c, 0.25), 0.7, 0.5))
    canvas.restore()


def draw_neck(canvas: skia.Canvas, who: Character, sway: float, rise: float) -> None:
    """A neck that ends at (0, 0), where the shoulders begin, and whose upper end follows the head."""
    half = 11.5 if who.age == "child" else 13 if who.feminine else 15.5
    top_right, top_left = (half + sway, -26 + rise), (-half + sway, -26 + rise)
    right, left = [(half, -3), (half + 3.5, 6)], [(-half - 3.5, 6), (-half, -3)]
    neck = curve([top_right, top_right, *right, (0, 14), *left, top_left, top_left])
    skin = who.skin
    canvas.drawPath(neck, linear((-12, 0), (15, 4), mix(skin.base, skin.shade, 0.3), skin.shade))
    canvas.save()
    canvas.clipPath(neck, True)
    glow(canvas, sway + 2, -9 + rise, half * 1.35, 12, darker(skin.shade, 0.3), 0.75)  # the chin's shadow
    canvas.restore()


def draw_body(canvas: skia.Canvas, who: Character) -> None:
    """Shoulders and clothes around the base of the neck at (0, 0), y down."""
    cloth, trim, skin = who.scheme.cloth, who.scheme.trim, who.skin
    if who.clothes == "blazer":
        cloth = darker(cloth, 0.2)
    broad = 44 if who.age == "child" else 51 if who.feminine else 56
    half = [(11, -6), (17, -1), (33, 6.5), (broad - 4, 15), (broad + 1, 30), (broad + 3, 50)]
    torso = [*half, *((-x, y) for x, y in reversed(half))]
    shoulders = curve(torso)
    shade = radial((-26, 0), 96, lighter(cloth, 0.16), cloth, deeper(cloth, 0.45))
    canvas.drawPath(shoulders, shade)
    canvas.save()
    canvas.clipPath(shoulders, True)
    canvas.drawPath(curve([(34, 50), (33, 26), (38, 14)], closed=False), stroke(darker(cloth, 0.4), 1.1, 0.5))
    canvas.drawPath(curve([(-34, 50), (-33, 26), (-38, 14)], closed=False), stroke(darker(cloth, 0.4), 1.1, 0.4))
    _CLOTHES.get(who.clothes, _crew)(canvas, cloth, trim, skin.base, skin.shade)
    canvas.restore()


def _opening(canvas: skia.Canvas, base: Colour, shade: Colour, half: float, depth: float, pointed: bool) -> skia.Path:
    """Skin in the collar's opening; returns the collar's edge."""
    rounded = [(half * 0.55, depth * 0.82), (0, depth), (-half * 0.55, depth * 0.82)]
    edge = [(half, -7), *([(0, depth), (0, depth)] if pointed else rounded), (-half, -7)]
    paint = linear((0, -4), (0, depth + 4), shade, mix(base, shade, 0.3))
    canvas.drawPath(curve([edge[0], *edge, edge[-1]]), paint)
    return curve(edge, closed=False)


def _crew(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    edge = _opening(canvas, base, shade, 15, 9, pointed=False)
    canvas.drawPath(edge, stroke(darker(cloth, 0.18), 3.4))


def _vneck(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    edge = _opening(canvas, base, shade, 15, 21, pointed=True)
    canvas.drawPath(edge, stroke(trim, 2.6))


def _turtleneck(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    collar = skia.Rect.MakeLTRB(-15.5, -8, 15.5, 8)
    canvas.drawRRect(
        skia.RRect.MakeRectXY(collar, 6, 5), linear((-15, 0), (15, 0), lighter(cloth, 0.12), deeper(cloth, 0.35))
    )


def _shirt(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    _opening(canvas, base, shade, 13, 14, pointed=True)
    for s in (-1, 1):
        flap = skia.Path()
        flap.addPoly([skia.Point(s * 11, -6), skia.Point(s * 17, -1), skia.Point(s * 12, 14), skia.Point(0, 11)], True)
        canvas.drawPath(flap, fill(lighter(cloth, 0.3 if s < 0 else 0.15)))
        canvas.drawPath(flap, stroke(darker(cloth, 0.35), 0.6, 0.6))
    canvas.drawLine(0, 12, 0, 40, stroke(darker(cloth, 0.35), 0.8, 0.6))
    canvas.drawCircle(0, 18, 1.1, fill(darker(cloth, 0.4)))


def _blazer(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    inner = curve([(17, -6), (17, -6), (0, 40), (0, 40), (-17, -6), (-17, -6)])
    canvas.drawPath(inner, fill(lighter(trim, 0.3)))
    _opening(canvas, base, shade, 11, 7, pointed=True)
    tie = skia.Path()
    tie.addPoly([skia.Point(x, y) for x, y in ((-3, 6), (3, 6), (1.8, 10), (5, 40), (-5, 40), (-1.8, 10))], True)
    canvas.drawPath(tie, fill(darker(cloth, 0.45)))
    for s in (-1, 1):
        lapel = skia.Path()
        corners = ((s * 14, -5), (s * 20, 0), (s * 22, 12), (s * 17, 13), (s * 19, 17), (s * 2, 36))
        lapel.addPoly([skia.Point(x, y) for x, y in corners], True)
        canvas.drawPath(lapel, fill(lighter(cloth, 0.1) if s < 0 else darker(cloth, 0.12)))
        canvas.drawPath(lapel, stroke(darker(cloth, 0.5), 0.6, 0.7))


def _hoodie(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    _opening(canvas, base, shade, 13, 12, pointed=True)
    for s in (-1, 1):
        hood = curve([(s * 11, -8), (s * 22, -4), (s * 21, 8), (s * 8, 17), (0, 17), (s * 9, 8)])
        canvas.drawPath(hood, fill(lighter(cloth, 0.14) if s < 0 else darker(cloth, 0.14)))
        canvas.drawLine(s * 5, 15, s * 6, 30, stroke(trim, 1.3))


def _dungarees(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    canvas.drawPaint(linear((-40, 0), (50, 30), lighter(trim, 0.1), darker(trim, 0.25)))
    _crew(canvas, trim, trim, base, shade)
    for s in (-1, 1):
        canvas.drawLine(s * 27, 0, s * 22, 40, stroke(cloth, 6.5))
    canvas.drawRect(skia.Rect.MakeLTRB(-24, 19, 24, 60), fill(cloth))


def _scarf(canvas: skia.Canvas, cloth: Colour, trim: Colour, base: Colour, shade: Colour) -> None:
    wrap = curve([(-19, -5), (-8, 1), (8, 1), (19, -5), (24, 5), (14, 14), (-12, 14), (-24, 6)])
    canvas.drawPath(curve([(6, 8), (17, 6), (20, 46), (7, 46)]), fill(darker(trim, 0.12)))
    canvas.drawPath(wrap, linear((-20, -4), (20, 14), lighter(trim, 0.2), deeper(trim, 0.25)))
    canvas.drawPath(curve([(-20, 3), (-2, 8), (19, 2)], closed=False), stroke(darker(trim, 0.3), 1, 0.6))


_CLOTHES = {
    "vneck": _vneck,
    "turtleneck": _turtleneck,
    "shirt": _shirt,
    "blazer": _blazer,
    "hoodie": _hoodie,
    "dungarees": _dungarees,
    "scarf": _scarf,
}
