"""Hair styles and head wear, as outlines that later turn with the head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .characters import Character
from .drawing import Point
from .palette import Colour

Outline = list[Point]


@dataclass(frozen=True)
class HairShape:
    """Outlines around the head's centre: behind the body, over the body but behind the face, and over the face."""

    back: tuple[Outline, ...] = ()
    over: tuple[Outline, ...] = ()
    front: tuple[Outline, ...] = ()
    strands: tuple[Outline, ...] = ()
    ears: bool = True  # whether they show
    gloss: bool = True
    cloth: Colour | None = None  # head wear instead of hair
    sheer: float = 1.0  # opacity, below 1 for cropped hair


def _cap(line: Outline, top: float = -49, side: float = 33.5, low: float | None = None) -> Outline:
    """A cap of hair: over the skull from ear to ear and back along the hairline `line`, which runs right to left."""
    lows = (line[-1][1], line[0][1]) if low is None else (low, low)
    left = [(-side, lows[0]), (-side - 0.4, -16), (-side * 0.86, -34), (-side * 0.48, top + 3.2)]
    right = [(side * 0.48, top + 3.2), (side * 0.86, -34), (side + 0.4, -16), (side, lows[1])]
    return [*left, (0, top), *right, line[0], *line, line[-1]]


def _fan(crown: Point, ends: Outline, bulge: float = 5) -> tuple[Outline, ...]:
    """Strands that point away from the crown, each bent a little upwards; they start at the parting."""
    return tuple(
        [
            (crown[0] + k * (x - crown[0]), crown[1] + k * (y - crown[1]) - 4 * bulge * k * (1 - k))
            for k in (0.38, 0.7, 1)
        ]
        for x, y in ends
    )


def _flipped(outlines: tuple[Outline, ...], side: int) -> tuple[Outline, ...]:
    return tuple([(side * x, y) for x, y in outline] for outline in outlines)


def _both_sides(outline: Outline) -> tuple[Outline, Outline]:
    return outline, [(-x, y) for x, y in outline]


def _bumps(cx: float, cy: float, rx: float, ry: float, start: float, stop: float, count: int, depth: float) -> Outline:
    """A cloud's edge: an arc (degrees, 0 to the right, 90 up) with `count` bumps."""
    steps = count * 4
    points = []
    for k in range(steps + 1):
        a = math.radians(start + (stop - start) * k / steps)
        swell = 1 + depth * abs(math.sin(math.pi * k / 4))
        points.append((cx + rx * swell * math.cos(a), cy - ry * swell * math.sin(a)))
    return points


SIDE_PART = [(28, -1), (27, -13), (23.5, -22), (14, -25), (0, -29), (-12, -34), (-20, -27), (-26, -15), (-28, -1)]
SLICKED = [(28.5, 0), (27, -14), (21, -25), (11, -31), (0, -32.5), (-11, -31), (-21, -25), (-27, -14), (-28.5, 0)]
FRINGE = [(28, 2), (26, -11), (18, -13.5), (9, -15), (0, -15.5), (-9, -15), (-18, -13.5), (-26, -11), (-28, 2)]
CURTAIN = [(28.5, 8), (27.5, -8), (22, -20), (11, -28), (1, -37), (-9, -29), (-21, -20), (-27.5, -8), (-28.5, 8)]


def _buzz(who: Character) -> HairShape:
    return HairShape(front=(_cap(SLICKED, top=-44.5, side=31.5),), gloss=False, sheer=0.8)


def _crop(who: Character) -> HairShape:
    ends = [(27, -18), (20, -24), (8, -28), (-24, -22)]
    return HairShape(front=(_cap(SIDE_PART),), strands=_fan((-13, -40), ends))


def _quiff(who: Character) -> HairShape:
    outline = [(-33, -2), (-33.5, -17), (-30, -34), (-23, -46), (-8, -51), (8, -55), (22, -55), (31, -48), (33, -34)]
    outline += [(33.5, -17), (33, -2), (28.5, -2), (28.5, -2), (27, -16), (23, -27), (12, -32), (-4, -31), (-17, -29)]
    outline += [(-26, -17), (-28.5, -2), (-28.5, -2)]
    return HairShape(front=(outline,), strands=_fan((-14, -31), [(27, -44), (24, -37), (12, -48), (-6, -46)], 3))


def _spiky(who: Character) -> HairShape:
    outline: Outline = []
    for k in range(15):
        a = math.radians(188 - 196 * k / 14)
        r = 1.17 if k % 2 else 0.98
        tip = (34 * r * math.cos(a) + 3 * (k % 2), -14 - 35 * r * math.sin(a))
        outline += [tip, tip]
    for k in range(9):
        x = 28 - 7 * k
        y = (-18 if k % 2 else -29) if 0 < k < 8 else -4
        outline += [(x, y), (x, y)]
    return HairShape(front=(outline,), gloss=False)


def _curls(who: Character) -> HairShape:
    reach = 14 if who.feminine else -2
    around = _bumps(0, -11, 35, 37, 200 if who.feminine else 188, -20 if who.feminine else -8, 11, 0.1)
    line = _bumps(0, -8, 27.5, 16.5, 4, 176, 7, 0.13)
    back = (_bumps(0, -4, 37, 40, -50, 230, 14, 0.08),) if who.feminine else ()
    rings = tuple(
        _bumps(x, y, 4, 3.5, 20, 250, 2, 0.0) for x, y in ((-22, -34), (-8, -40), (8, -40), (22, -34), (0, -32))
    )
    return HairShape(back=back, front=([*around, (28, reach - 8), *line, (-28, reach - 8)],), strands=rings)


def _afro(who: Character) -> HairShape:
    around = _bumps(0, -13, 40, 39, 205, -25, 15, 0.05)
    line = _bumps(0, -4, 28, 22, 2, 178, 9, 0.05)
    return HairShape(back=(_bumps(0, -10, 42, 42, 0, 360, 20, 0.04),), front=([*around, *line],), gloss=False)


def _swept(who: Character) -> HairShape:
    line = [(29, 8), (28.5, -6), (25, -15), (14, -18), (-2, -24), (-14, -35), (-22, -24), (-28, -10), (-29, 8)]
    neck = [(-34, -8), (-34.5, 18), (-27, 27), (0, 30), (27, 27), (34.5, 18), (34, -8), (0, -40)]
    ends = [(28, -10), (18, -20), (4, -24), (-27, -16), (31, 2)]
    return HairShape(
        ears=False, back=(neck,), front=(_cap(line, top=-50.5, side=34.5),), strands=_fan((-15, -42), ends)
    )


def _bob(who: Character) -> HairShape:
    back = [(-35, -14), (-38.5, 12), (-36, 33), (-20, 37), (0, 35), (20, 37), (36, 33), (38.5, 12), (35, -14), (0, -48)]
    line = [(30, 28), (28, 10), (26, -12), *FRINGE[2:-2], (-26, -12), (-28, 10), (-30, 28)]
    outline = _cap(line, top=-51, side=36.5, low=27)
    ends = [(18, -15), (7, -16), (-7, -16), (-18, -15), (31, 8), (-31, 8)]
    return HairShape(ears=False, back=(back,), front=(outline,), strands=_fan((0, -47), ends, 2))


def _long(who: Character) -> HairShape:
    back = [(-35, -14), (-39, 14), (-40, 44), (-36, 70), (36, 70), (40, 44), (39, 14), (35, -14), (0, -48)]
    lock = [(29.5, 30), (30, 12), *CURTAIN[1:-1], (-30, 12), (-29.5, 30)]
    outline = _cap(lock, top=-50.5, side=36, low=30)
    ends = [(27, -20), (31, 4), (17, -28), (-27, -20), (-31, 4), (-17, -28)]
    return HairShape(ears=False, back=(back,), front=(outline,), strands=_fan((1, -46), ends, 2))


def _wavy(who: Character) -> HairShape:
    right = [(0, -48), (26, -42), (37, -18), (36, -2), (41, 10), (38, 22), (44, 34), (40, 48), (44, 64), (0, 70)]
    back = right + [(-x, y) for x, y in right[-2:0:-1]]
    line = [(29, 24), (28.5, 6), (27, -9), (19, -17), (3, -24), (-12, -36), (-21, -24), (-28, -8), (-30, 8), (-29, 24)]
    ends = [(27, -12), (14, -21), (31, 8), (-28, -14), (-32, 6)]
    return HairShape(
        ears=False, back=(back,), front=(_cap(line, top=-51.5, side=36, low=24),), strands=_fan((-13, -43), ends, 4)
    )


def _ponytail(who: Character) -> HairShape:
    tail = [(16, -34), (33, -40), (45, -26), (47, 0), (42, 24), (49, 42), (34, 30), (30, 4), (24, -16)]
    ends = [(18, -31), (7, -36), (-8, -36), (-20, -29), (-27, -14)]
    return HairShape(back=(tail,), front=(_cap(SLICKED, top=-48.5),), strands=_fan((12, -47), ends, 2))


def _topknot(who: Character) -> HairShape:
    bun = _bumps(0, -52, 11, 9, 0, 360, 5, 0.06)
    ends = [(19, -30), (9, -34), (-9, -34), (-19, -30)]
    return HairShape(back=(bun,), front=(_cap(SLICKED, top=-48),), strands=_fan((0, -48), ends, 1))


def _pigtails(who: Character) -> HairShape:
    tail = [(28, -8), (38, -14), (48, -2), (48, 18), (41, 34), (37, 20), (31, 8)]
    ends = [(18, -15), (6, -16), (-6, -16), (-18, -15)]
    return HairShape(back=_both_sides(tail), front=(_cap(FRINGE, top=-49.5),), strands=_fan((0, -46), ends, 2))


def _braids(who: Character) -> HairShape:
    rings = tuple(
        [(x + s * 6.2 * math.cos(a), y + 6.4 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 8, endpoint=False)]
        for s in (-1, 1)
        for x, y in ((s * (33 + 0.5 * k), 14 + 9 * k) for k in range(6))
    )
    ends = [(27, -18), (17, -28), (-27, -18), (-17, -28)]
    return HairShape(over=rings, front=(_cap(CURTAIN, top=-49.5, side=34),), strands=_fan((1, -46), ends, 2))


def _pixie(who: Character) -> HairShape:
    line = [(29.5, 9), (27, -4), (25.5, -12), (14, -14), (-2, -20), (-14, -33), (-22, -24), (-27, -10), (-29.5, 7)]
    ends = [(26, -13), (14, -16), (2, -20), (-27, -14), (29, -4)]
    return HairShape(front=(_cap(line, top=-50, side=34.5, low=7),), strands=_fan((-15, -41), ends, 6))


def _receding(who: Character) -> HairShape:
    side = [(31.5, 4), (33.5, -6), (33, -20), (27, -32), (21, -36), (22.5, -27), (25.5, -16), (27.5, -6), (28, 4)]
    return HairShape(front=_both_sides(side), gloss=False, sheer=0.95)


def _bald(who: Character) -> HairShape:
    return HairShape(gloss=False)


def _headscarf(who: Character) -> HairShape:
    wrap = [(0, -49), (22, -44), (35, -22), (37, 6), (33, 34), (30, 58), (0, 66)]
    over = wrap + [(-x, y) for x, y in wrap[-2:0:-1]]
    line = [(27, 34), (28.5, 12), (27.5, -10), (22, -23), (11, -30), (0, -32), (-11, -30), (-22, -23), (-27.5, -10)]
    line += [(-28.5, 12), (-27, 34)]
    folds = ([(36, -10), (28, 24), (10, 50)], [(-36, 6), (-24, 40), (6, 60)], [(12, -46), (27, -28), (32, 0)])
    cloth = who.scheme.accent if who.clothes in ("crew", "scarf") else who.scheme.trim
    front = _cap(line, top=-50, side=37, low=30)
    return HairShape(over=(over,), front=(front,), strands=folds, ears=False, gloss=False, cloth=cloth)


def _beanie(who: Character) -> HairShape:
    line = [(34, -13), (26, -15), (12, -18), (0, -19), (-12, -18), (-26, -15), (-34, -13)]
    dome = [(-33.5, -16), (-33, -32), (-25, -46), (-10, -53), (0, -54), (10, -53), (25, -46), (33, -32), (33.5, -16)]
    ribs = tuple([(x * 0.96, -16 - (34 - abs(x)) * 0.08), (x, -28 - (34 - abs(x)) * 0.1)] for x in range(-30, 31, 5))
    neck = [(-31, -14), (-33, 8), (-27, 18), (27, 18), (33, 8), (31, -14)]
    return HairShape(back=(neck,), front=([*dome, *line],), strands=ribs, gloss=False, cloth=who.scheme.accent)


STYLES: dict[str, Callable[[Character], HairShape]] = {
    "bob": _bob,
    "long": _long,
    "wavy": _wavy,
    "ponytail": _ponytail,
    "topknot": _topknot,
    "pigtails": _pigtails,
    "braids": _braids,
    "pixie": _pixie,
    "curls": _curls,
    "afro": _afro,
    "headscarf": _headscarf,
    "crop": _crop,
    "quiff": _quiff,
    "spiky": _spiky,
    "buzz": _buzz,
    "swept": _swept,
    "beanie": _beanie,
    "bald": _bald,
    "receding": _receding,
}


def hair_shape(who: Character) -> HairShape:
    """The character's hair, combed to their side and scaled to their volume."""
    shape = STYLES[who.hair_style](who)
    grown = {}
    for layer in ("back", "over", "front", "strands"):
        outlines = _flipped(getattr(shape, layer), who.parting)
        grown[layer] = tuple([(x * who.cheek / 29.6, y) for x, y in o] for o in outlines)
    back = tuple([(x * who.volume, y) for x, y in o] for o in grown["back"])
    return replace(shape, **(grown | {"back": back}))
