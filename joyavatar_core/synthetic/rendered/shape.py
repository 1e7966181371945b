"""The shape of a head as weights of MakeHuman's morphs: macro targets first, then what makes faces differ."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

YOUNG = 0.5  # on MakeHuman's scale of ages, 25 years; 1 is 90 years
CHILD = 0.1875  # and this is 11 years
# Deviations of the signed morphs, by the group that is named before the slash.
SPREAD = {
    "head": 0.15, "eyes": 0.17, "nose": 0.2, "mouth": 0.17, "chin": 0.18, "cheek": 0.2, "ears": 0.2, "eyebrows": 0.12,
    "forehead": 0.17, "asym": 0.11, "neck": 0.1,
}  # fmt: skip
BETWEEN_SIDES = 0.05  # deviation of one side from the other
OPPOSITES = (("-decr", "-incr"), ("-down", "-up"), ("-backward", "-forward"), ("-in", "-out"), ("-concave", "-convex"))


def macro_weights(
    masculinity: float, age: float, origin: dict[str, float], muscle: float, weight: float
) -> dict[str, float]:
    """Weights of MakeHuman's macro targets; all arguments are 0..1, `origin` sums to 1."""
    if age < YOUNG:
        grown = (age - CHILD) / (YOUNG - CHILD)
        ages = {"child": 1 - grown, "young": grown}
    else:
        old = (age - YOUNG) / (1 - YOUNG)
        ages = {"young": 1 - old, "old": old}
    found = {}
    for gender, g in (("female", 1 - masculinity), ("male", masculinity)):
        for name, a in ages.items():
            found |= {f"macro/{place}-{gender}-{name}": g * a * share for place, share in origin.items()}
            for m, by_muscle in _three("muscle", muscle).items():
                for w, by_weight in _three("weight", weight).items():
                    found[f"macro/universal-{gender}-{name}-{m}-{w}"] = g * a * by_muscle * by_weight
    return {name: float(share) for name, share in found.items() if share > 1e-4}


def _three(what: str, value: float) -> dict[str, float]:
    low, high = max(1 - 2 * value, 0), max(2 * value - 1, 0)
    return {f"min{what}": low, f"average{what}": 1 - low - high, f"max{what}": high}


def face_weights(rng: np.random.Generator, names: Iterable[str]) -> dict[str, float]:
    """Individual morphs of a face. Opposite morphs share one signed number; both sides of the face share most of it."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name in names:
        group, stem = name.split("/")
        if group == "macro" or stem.endswith("shape-pointed"):
            continue
        for ends in OPPOSITES:
            stem = next((stem.removesuffix(end) + " both" for end in ends if stem.endswith(end)), stem)
        side = stem[0] if stem[:2] in ("l-", "r-") else ""
        groups.setdefault(f"{group}/{stem[2:] if side else stem}", {}).setdefault(side, []).append(name)
    weights = {}
    for stem, sides in groups.items():
        group = stem.split("/")[0]
        common = rng.normal(0, SPREAD[group])
        for side, members in sides.items():
            value = common + (rng.normal(0, BETWEEN_SIDES) if side else 0)
            if len(members) == 2:
                low = next(n for n in members if n.endswith(tuple(ends[0] for ends in OPPOSITES)))
                high = next(n for n in members if n != low)
                weights[high if value > 0 else low] = float(min(abs(value), 1.0))
            elif group in ("head", "asym", "ears", "chin") and value > 0:
                weights[members[0]] = float(min(value, 0.6) * (0.6 if group == "ears" else 1))
    return weights
