"""Palettes of skin, hair, eyes, clothes and backgrounds, chosen by hand."""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """An sRGB colour, 0..255 a channel."""

    r: int
    g: int
    b: int


def colour(hexadecimal: str) -> Colour:
    """`"F4C5A0"` -> Colour."""
    return Colour(*bytes.fromhex(hexadecimal))


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """Linear blend, `t` = 0 gives `a`."""
    return Colour(*(round(x + (y - x) * t) for x, y in zip(a, b, strict=True)))


# Shadows go towards violet and lights towards cream: one light for the whole set.
NIGHT, CREAM, WHITE = colour("2A1030"), colour("FFF3DC"), colour("FFFFFF")


def darker(c: Colour, t: float) -> Colour:
    """The same colour in shadow."""
    return mix(c, NIGHT, t)


def lighter(c: Colour, t: float) -> Colour:
    """The same colour in the light."""
    return mix(c, CREAM, t)


def deeper(c: Colour, t: float) -> Colour:
    """In shadow but as colourful as before: for hair and cloth, where grey shadows look dusty."""
    return mix(c, Colour(round(c.r * 0.34), round(c.g * 0.24), round(c.b * 0.3)), t)


class Skin(NamedTuple):
    """Base tone, its shadow and the lips that suit it."""

    base: Colour
    shade: Colour
    lip: Colour


class Scheme(NamedTuple):
    """A background (from top to bottom), an accent for its shapes, and two colours of cloth."""

    top: Colour
    bottom: Colour
    accent: Colour
    cloth: Colour
    trim: Colour


def _table(kind: type, rows: str) -> tuple:
    return tuple(kind(*map(colour, row.split())) for row in rows.strip().splitlines())


SKINS: tuple[Skin, ...] = _table(
    Skin,
    """
    FBE0D0 E5A99A D4686C
    F9D6BC DF9F84 CE6462
    F4C5A0 D58F6B C4605A
    EBB789 C8824F B9584F
    DDA271 B36F42 AF534A
    CF9A6A A06A40 A65048
    BE8355 8C5430 A04A43
    A3693F 744223 9C4A45
    84502F 5A311B 924541
    734630 4E2B1B 954849
    613B28 44271B 924748
    """,
)

HAIR: dict[str, Colour] = {
    name: colour(value)
    for name, value in {
        "black": "2E2733",
        "blue black": "252B42",
        "dark brown": "4A2F26",
        "chestnut": "6E4129",
        "auburn": "8A3E25",
        "copper": "B5532A",
        "ginger": "D0752F",
        "dark blond": "A87B46",
        "blond": "DDB468",
        "platinum": "EEE0BE",
        "grey": "96969F",
        "silver": "C3C7CF",
        "white": "ECEAE6",
        "rose": "DE7A98",
        "teal": "2E8C90",
        "lavender": "9A85C8",
    }.items()
}
NATURAL_DARK = ("black", "blue black", "dark brown")
NATURAL_LIGHT = ("dark brown", "chestnut", "auburn", "copper", "ginger", "dark blond", "blond", "platinum")
AGED = ("grey", "silver", "white")
DYED = ("rose", "teal", "lavender")

EYES: tuple[Colour, ...] = tuple(
    map(colour, ("5A3620", "7A4A24", "8A6A2E", "5E7F3F", "3F8A72", "4483B8", "6E93B5", "7B828C"))
)

SCHEMES: tuple[Scheme, ...] = _table(
    Scheme,
    """
    E3EDD9 A9C6A6 F2C879 DE6B4A FFF1DE
    FCE6DE F0B7A8 8FB5B0 2F5D62 F6E7D3
    DDEFF8 9CC7E0 F7D98B EE9A3A FFFFFF
    475889 232D50 E8B86D C94F4F F3DFC0
    F9E6B2 EBBE5A 4B7F83 33566B F9F1DD
    E8E0F4 BBA6DB F5C3A8 5C4B8A F7E9D7
    C6E4DE 6FB1AA F4A988 F4E3C3 E07A5F
    F4D3BC D98E6C 2E6163 F6EAD7 3A5A6B
    E2F5EB A5D9C0 F79F8A 3D5A80 EEF4F0
    E7B7B6 8E6A8C F7D9B0 3E3A5C F4C9A4
    6B7683 363D48 F2B950 7FA99B F4EDE0
    FCF5E8 EAD8BC B5654A 6B7F5E FFF8EA
    FFD9CB F78F7A 35607A FDF0DC 35607A
    7FA18C 38594B F0C987 E9D8B4 B5523B
    EAF3F7 BFD3DF D5667B D5667B FFFFFF
    8C6689 472F4F F2A879 E9B872 5B3A5E
    D7E3F4 8FA6CF F2C6A0 F4F1EA 4C5F8E
    F7E7C9 C9B27E 7C8F5A 8C4A3C F4E6CC
    """,
)
