"""Rendered people: all attributes of one person, sampled from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import wardrobe
from .bundle import Bundle
from .expression import Rest
from .hats import HATS
from .shape import face_weights, macro_weights
from .wardrobe import choose, weighed

BEARDS = {"stubble": 0.4, "short": 0.2, "full": 0.17, "goatee": 0.13, "moustache": 0.1}
OPEN_SMILES = 0.35  # share of people who talk with an open smile, as many do in portraits
ORIGINS = ("african", "asian", "caucasian")
LIGHT_TONE, DARK_TONE = np.array([0.60, 0.39, 0.29]), np.array([0.125, 0.068, 0.044])  # linear


@dataclass(frozen=True)
class Person:
    """A rendered person; colours are linear, shares 0..1. The first five fields are what voice and motion ask for."""

    age: str
    feminine: bool
    temper: float  # -1 grave .. 1 cheerful
    liveliness: float  # size of head movements
    lean: float  # how the head is usually held, radians of roll
    morphs: dict[str, float]
    skins: tuple[str, str]
    skin_blend: float
    tone: tuple[float, float, float]
    contrast: float  # of the skins' own marks
    lips: tuple[float, float, float]  # logarithm of a gain
    freckles: float
    hair: str  # "mesh:NAME", "grown:NAME", "fur:NAME" or "none"
    hair_mirrored: bool
    hair_colour: tuple[float, float, float]
    brows: str
    lashes: str
    iris: str
    clothes: str
    dyes: tuple[tuple[float, float, float], tuple[float, float, float]]  # of the clothes and of their pattern
    own_colour: float  # how much of the clothes' own colours is kept
    pattern: int  # as in shaders/cloth.glsl
    beard: str
    beard_density: float
    glasses: bool
    hat: str  # one of hats.HATS
    rest: Rest
    turned: tuple[float, float, float]  # yaw, pitch and roll at which the head is held, radians
    seed: tuple[int, ...]  # for the details: strands, the shape of glasses


def sample_person(rng: np.random.Generator, split: str, bundle: Bundle, seed: tuple[int, ...]) -> Person:
    """One person; people of "train" and "held-out" share no skin, hair style or clothes."""
    feminine = bool(rng.random() < 0.5)
    kind = "woman" if feminine else "man"
    age = weighed(rng, {"child": 0.08, "young": 0.42, "adult": 0.3, "elder": 0.2})
    years = {"child": (0.3, 0.38), "young": (0.42, 0.55), "adult": (0.52, 0.72), "elder": (0.72, 0.98)}[age]
    grown = float(rng.uniform(*years))
    masculinity = float(np.clip(rng.normal(0.06 if feminine else 0.92, 0.1), 0, 1))
    origin = rng.dirichlet([0.45, 0.45, 0.45])
    muscle, weight = np.clip(rng.normal((0.5, 0.48), (0.12, 0.17)), (0.2, 0.1), (0.8, 0.95))
    morphs = macro_weights(masculinity, grown, dict(zip(ORIGINS, map(float, origin), strict=True)), muscle, weight)
    morphs |= face_weights(rng, bundle.morphs) | _brow_angle(rng.normal(0.3, 0.3))

    melanin = float(np.clip(origin @ (0.95, 0.28, 0.1) + rng.normal(0, 0.09), 0, 1))
    tone = np.exp((1 - melanin) * np.log(LIGHT_TONE) + melanin * np.log(DARK_TONE))
    tone *= np.exp(rng.normal(0, 0.05, 3) * (0.6, 0.6, 1)) * (1, 1, 1 - 0.12 * origin[1])
    shade = "dark" if melanin > 0.5 else "light"
    skins = tuple(choose(rng, wardrobe.SKINS, (kind, shade), split) for _ in range(2))

    hair = _hair(rng, kind, age, melanin, split)
    usual = wardrobe.LIGHT_SKIN if melanin < 0.33 else wardrobe.DARK_SKIN
    usual = usual * wardrobe.AGED if age == "elder" else usual
    hair_colour = wardrobe.HAIR_COLOURS[rng.choice(len(usual), p=usual / usual.sum())]
    hair_colour = hair_colour * np.exp(rng.normal(0, 0.15, 3) * (0.5, 0.5, 0.7))
    bearded = not feminine and age != "child" and rng.random() < 0.6
    temper = float(np.clip(rng.normal(0.3, 0.5), -1, 1))
    return Person(
        age=age, feminine=feminine, temper=temper,
        liveliness=float(rng.uniform(0.7, 1.3)), lean=float(rng.normal(0, 0.03)),
        morphs=morphs, skins=skins, skin_blend=float(rng.random()),
        tone=_colour(tone), contrast=float(rng.uniform(0.85, 1.15)),
        lips=_colour(rng.normal(0, 0.08, 3) + feminine * rng.random() * np.array([0.06, -0.10, -0.06])),
        freckles=float(rng.uniform(0.2, 0.9)) if melanin < 0.3 and rng.random() < 0.2 else 0.0,
        hair=hair, hair_mirrored=bool(rng.random() < 0.5), hair_colour=_colour(hair_colour),
        brows=f"brow{rng.choice(wardrobe.BROWS[kind]):03}", lashes=f"lash{rng.choice(wardrobe.LASHES[kind]):02}",
        iris=weighed(rng, wardrobe.DARK_IRIS if melanin > 0.4 or origin[1] > 0.5 else wardrobe.ANY_IRIS),
        clothes=choose(rng, wardrobe.CLOTHES, kind, split),
        dyes=tuple(_colour(dye * np.exp(rng.normal(0, 0.15, 3))) for dye in rng.choice(wardrobe.DYES, 2)),
        own_colour=float(rng.choice([0.0, rng.random(), 1.0], p=[0.8, 0.15, 0.05])),
        pattern=int(rng.choice(6, p=[0.5, 0.12, 0.06, 0.1, 0.07, 0.15])),
        beard=weighed(rng, BEARDS) if bearded else "none", beard_density=float(rng.uniform(0.5, 1)),
        glasses=bool(rng.random() < (0.35 if age == "elder" else 0.18)),
        hat=weighed(rng, HATS),
        turned=(float(np.clip(rng.normal(0, 0.13), -0.35, 0.35)), float(rng.normal(0, 0.06)), 0.0),
        rest=Rest(
            smile=float(np.clip(0.12 + 0.1 * temper, 0.0, 0.3)), lift=float(np.clip(rng.normal(0.34, 0.12), 0.05, 0.6)),
            teeth=float(rng.uniform(0.2, 1.0)) if rng.random() < OPEN_SMILES else 0.0,
        ),
        seed=seed,
    )  # fmt: skip


def _hair(rng: np.random.Generator, kind: str, age: str, melanin: float, split: str) -> str:
    """A style; some go with frizzy hair or with age only."""
    while True:
        hair = choose(rng, wardrobe.HAIR, kind, split)
        if hair in ("fur:afro", "fur:frizz") and melanin < 0.4 and rng.random() < 0.8:
            continue
        if hair == "none" and age in ("child", "young") and rng.random() < 0.8:
            continue
        return hair


def _brow_angle(angle: float) -> dict[str, float]:
    """Raised inner ends look friendly, lowered ones stern."""
    return {f"eyebrows/eyebrows-angle-{'up' if angle > 0 else 'down'}": float(min(abs(angle), 0.8))}


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    return tuple(map(float, values))
