"""Drawn characters: all attributes of one person, sampled from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import palette
from .palette import Colour, Scheme, Skin

AGES = ("child", "young", "adult", "elder")
SPLITS = ("train", "held-out")
BACKDROPS = ("plain", "halo", "bokeh", "window", "shelf", "leaves", "hills", "stripes")
CLOTHES = ("crew", "hoodie", "shirt", "blazer", "turtleneck", "vneck", "dungarees", "scarf")
LONG_HAIR = ("bob", "long", "wavy", "ponytail", "topknot", "pigtails", "braids", "pixie", "curls", "afro", "headscarf")
SHORT_HAIR = ("crop", "quiff", "spiky", "buzz", "curls", "afro", "swept", "beanie", "bald", "receding", "long")
HAIR_STYLES = tuple(dict.fromkeys(LONG_HAIR + SHORT_HAIR))


@dataclass(frozen=True)
class Character:
    """An illustrated person; lengths are in 1/128 of the picture's side, factors are relative to an average."""

    age: str
    feminine: bool
    skin: Skin
    hair_style: str
    hair: Colour
    eyes: Colour
    scheme: Scheme
    backdrop: str
    clothes: str
    zoom: float
    cheek: float  # half width of the face at the cheekbones
    jaw: float  # width of the jaw, as a share of the cheekbones'
    chin: float  # half width of the chin
    chin_y: float
    eye_y: float
    eye_gap: float
    eye_size: float
    eye_tilt: float
    brow_weight: float
    nose: str
    nose_size: float
    mouth_width: float
    lip_weight: float
    lashes: float
    volume: float  # of the hair
    parting: int  # -1 or 1: the side it is combed to
    beard: str
    glasses: str
    earrings: str
    freckles: bool
    blush: float
    lean: float  # how the head is usually held, radians of roll
    temper: float  # -1 grave .. 1 cheerful
    liveliness: float  # size of head movements
    seed: int  # for the details: bokeh, strands, freckles


def held_out_look(style: str, skin: int, scheme: int) -> bool:
    """Whether a combination of hair style, skin and colours is held out from training (one in six)."""
    return (HAIR_STYLES.index(style) * 5 + skin * 3 + scheme) % 6 == 0


def generator(seed: int, split: str, purpose: int) -> np.random.Generator:
    """An independent stream of random numbers for one purpose of one clip."""
    return np.random.default_rng([SPLITS.index(split), seed, purpose])


def _choose(rng: np.random.Generator, **weights: float) -> str:
    names, p = list(weights), np.array(list(weights.values()))
    return str(rng.choice(names, p=p / p.sum()))


def _hair_colour(rng: np.random.Generator, age: str, skin: int, style: str) -> Colour:
    if age == "elder":
        names = palette.AGED
    elif age != "child" and style not in ("receding", "bald") and rng.random() < 0.06:
        names = palette.DYED
    elif skin >= 5:
        names = palette.NATURAL_DARK
    else:
        names = palette.NATURAL_LIGHT + palette.NATURAL_DARK[:1]
    return palette.HAIR[str(rng.choice(names))]


def _hair_style(rng: np.random.Generator, age: str, feminine: bool) -> str:
    style = str(rng.choice(LONG_HAIR if feminine else SHORT_HAIR))
    unlikely = {
        "child": ("bald", "receding", "buzz"),
        "young": ("receding",),
        "adult": ("pigtails",),
        "elder": ("pigtails", "spiky", "braids", "beanie", "quiff"),
    }[age]
    return _hair_style(rng, age, feminine) if style in unlikely else style


def sample_character(seed: int, split: str = "train") -> Character:
    """The person of one seed; `split` is "train" or "held-out", which never share a look."""
    rng = generator(seed, split, 0)
    while True:
        age = _choose(rng, child=0.18, young=0.32, adult=0.3, elder=0.2)
        feminine = bool(rng.random() < 0.5)
        skin, scheme = int(rng.integers(len(palette.SKINS))), int(rng.integers(len(palette.SCHEMES)))
        style = _hair_style(rng, age, feminine)
        if held_out_look(style, skin, scheme) == (split == "held-out"):
            break
    child, elder, man = age == "child", age == "elder", not feminine and age != "child"
    near = rng.normal
    eyes = palette.EYES[:3] if skin >= 5 else palette.EYES
    return Character(
        age=age,
        feminine=feminine,
        skin=palette.SKINS[skin],
        hair_style=style,
        hair=_hair_colour(rng, age, skin, style),
        eyes=eyes[int(rng.integers(len(eyes)))],
        scheme=palette.SCHEMES[scheme],
        backdrop=str(rng.choice(BACKDROPS)),
        clothes=str(rng.choice(CLOTHES)),
        zoom=float(np.clip(near(1.3, 0.04), 1.22, 1.38)),
        cheek=float(np.clip(near(30.5 if child else 29.6, 0.9), 27.8, 31.5)),
        jaw=float(np.clip(near(0.9 if man else 0.86 if child else 0.83, 0.035), 0.76, 0.97)),
        chin=float(np.clip(near(12.0 if man else 8.5, 1.6), 6.0, 15.0)),
        chin_y=float(np.clip(near(37.5 if child else 41.0 if man else 39.5, 1.0), 36.0, 43.0)),
        eye_y=float(near(3.5 if child else 0.5, 0.6)),
        eye_gap=float(np.clip(near(13.4, 0.5), 12.4, 14.4)),
        eye_size=float(np.clip(near(1.12 if child else 1.02 if feminine else 0.94, 0.05), 0.82, 1.22)),
        eye_tilt=float(near(0.03 if feminine else 0.0, 0.05)),
        brow_weight=float(np.clip(near(1.3 if man else 0.85, 0.2), 0.5, 1.8)),
        nose=str(
            rng.choice(
                ("button", "straight", "broad", "long"), p=(0.7, 0.2, 0.1, 0.0) if child else (0.3,) * 2 + (0.2,) * 2
            )
        ),
        nose_size=float(np.clip(near(0.82 if child else 1.12 if elder else 1.0, 0.1), 0.7, 1.35)),
        mouth_width=float(np.clip(near(12.8 if child else 13.6, 0.5), 12.4, 15.0)),
        lip_weight=float(np.clip(near(0.85 if man or child else 1.15, 0.15) - 0.15 * elder, 0.6, 1.5)),
        lashes=1.0 if feminine else 0.35,
        volume=float(near(1.0, 0.07)),
        parting=int(rng.choice((-1, 1))),
        beard=_choose(rng, none=0.5, stubble=0.16, moustache=0.1, goatee=0.09, full=0.15) if man else "none",
        glasses=_choose(rng, none=0.5 if elder else 0.7, round=0.15, square=0.15, cat=0.1 * feminine),
        earrings=_choose(rng, none=0.5, stud=0.2, hoop=0.2, drop=0.1) if feminine and not child else "none",
        freckles=bool(rng.random() < (0.25 if skin < 5 else 0.05)),
        blush=float(rng.uniform(0.3, 0.9) * (1.2 if child or feminine else 0.6)),
        lean=float(near(0, 0.025)),
        temper=float(np.clip(near(0.15, 0.5), -1, 1)),
        liveliness=float(rng.uniform(0.7, 1.3)),
        seed=int(rng.integers(2**31)),
    )
