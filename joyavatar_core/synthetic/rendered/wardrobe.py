"""Tables of skins, hair, brows, eyes and clothes, their frequencies, and which of them are held out from training."""

from __future__ import annotations

import numpy as np

# Skins, hairs and clothes that only held-out people have come after the bar.
SKINS = {
    ("woman", "light"): (
        "young_lightskinned_female_diffuse2 middleage_lightskinned_female_diffuse2",
        "young_lightskinned_female_diffuse3",
    ),
    ("man", "light"): (
        "young_lightskinned_male_diffuse young_lightskinned_male_diffuse2 middleage_lightskinned_male_diffuse "
        "old_lightskinned_male_diffuse2",
        "young_lightskinned_male_diffuse3 middleage_lightskinned_male_diffuse2",
    ),
    ("woman", "dark"): (
        "young_darkskinned_female_diffuse old_darkskinned_female_diffuse",
        "middleage_darkskinned_female_diffuse",
    ),
    ("man", "dark"): (
        "young_darkskinned_male_diffuse old_darkskinned_male_diffuse",
        "middleage_darkskinned_male_diffuse",
    ),
}
HAIR = {  # "mesh" from the bundle, "grown" strips, "fur" shells
    "woman": (
        "mesh:bob01 mesh:bob01 mesh:long01 mesh:long01 mesh:long01 mesh:ponytail01 mesh:ponytail01 mesh:braid01 "
        "mesh:braid01 mesh:braid01 mesh:short03 mesh:short04 grown:long grown:wavy grown:wavy grown:fringe "
        "grown:curly fur:cropped fur:curls fur:afro",
        "mesh:bob02 mesh:bob02 mesh:short02 grown:swept grown:fringe fur:frizz",
    ),
    "man": (
        "mesh:short01 mesh:short01 mesh:short04 mesh:short04 mesh:short03 grown:swept grown:mop grown:curly "
        "fur:buzz fur:buzz fur:cropped fur:cropped fur:curls fur:afro none none",
        "mesh:short02 mesh:short02 fur:frizz fur:buzz grown:wavy none",
    ),
}
CLOTHES = {
    "woman": (
        "female_casualsuit01 female_sportsuit01 male_casualsuit04 male_worksuit01 male_casualsuit03",
        "female_elegantsuit01 male_casualsuit05",
    ),
    "man": (
        "male_casualsuit02 male_casualsuit03 male_casualsuit04 male_casualsuit06 male_worksuit01",
        "male_elegantsuit01 male_casualsuit05",
    ),
}
BROWS = {"woman": (1, 2, 3, 4, 5, 6, 7, 10, 11), "man": (1, 2, 4, 5, 8, 9, 10, 11, 12)}
LASHES = {"woman": (1, 2, 3, 4), "man": (1, 4)}
DARK_IRIS = {"brownlight": 1.0}
ANY_IRIS = {
    "brownlight": 0.55,
    "blue": 0.12,
    "green": 0.08,
    "grey": 0.11,
    "lightblue": 0.06,
    "ice": 0.03,
    "bluegreen": 0.05,
}

# Linear colours of hair from black to white, and how usual they are: with light skin, with dark skin, with age.
HAIR_COLOURS = np.array(
    [
        (0.018, 0.014, 0.012), (0.04, 0.026, 0.017), (0.08, 0.045, 0.025), (0.15, 0.085, 0.045), (0.28, 0.17, 0.08),
        (0.45, 0.31, 0.16), (0.26, 0.09, 0.03), (0.38, 0.37, 0.36), (0.62, 0.60, 0.58),
    ]
)  # fmt: skip
LIGHT_SKIN = np.array([3, 3, 3, 2, 1.5, 1.2, 0.6, 0.1, 0.05])
DARK_SKIN = np.array([6, 2, 0.6, 0.1, 0, 0, 0, 0.05, 0.05])
AGED = np.array([0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.2, 6, 7])


# Linear colours of cloth, from black to white and from red to violet.
DYES = np.array(
    [
        (0.012, 0.012, 0.014), (0.03, 0.03, 0.035), (0.1, 0.1, 0.1), (0.3, 0.3, 0.3), (0.75, 0.75, 0.75),
        (0.85, 0.83, 0.78), (0.015, 0.03, 0.09), (0.03, 0.08, 0.25), (0.15, 0.3, 0.6), (0.02, 0.12, 0.12),
        (0.04, 0.13, 0.04), (0.12, 0.16, 0.06), (0.35, 0.05, 0.04), (0.18, 0.015, 0.03), (0.6, 0.25, 0.03),
        (0.7, 0.5, 0.1), (0.3, 0.17, 0.08), (0.5, 0.38, 0.25), (0.55, 0.2, 0.3), (0.15, 0.06, 0.25),
    ]
)  # fmt: skip


def choose(rng: np.random.Generator, table: dict, key: object, split: str) -> str:
    """One of a table's names that `split` may use: training those before the bar, held-out those after it."""
    return str(rng.choice(table[key][split == "held-out"].split()))


def weighed(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A key, chosen with a probability proportional to its weight."""
    share = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=share / share.sum()))
