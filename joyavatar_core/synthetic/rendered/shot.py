"""The shot: lights, camera, film response and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scenery import sample_scenery
from .transforms import direction, parallel, perspective

TARGET_Z = -0.2  # what the camera looks at, in units of Head
REACH = 2.6  # half the side of what the shadow map covers
USUAL, USUAL_TARGET = (1.3, 1.85), (-0.5, -0.25)  # of sample_camera
WIDE, WIDE_TARGET = (1.7, 2.4), (-0.6, -0.3)


@dataclass(frozen=True)
class Light:
    """Three lights, the first of which throws shadows, between a sky and a ground."""

    directions: np.ndarray  # [3, 3]
    colours: np.ndarray  # [3, 3] linear
    sky: np.ndarray  # [3]
    ground: np.ndarray  # [3]

    @property
    def shadow_matrix(self) -> np.ndarray:
        return parallel(self.directions[0], np.array([0, -0.4, -0.4]), REACH, 5.0)


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from."""

    eye: np.ndarray  # [3]
    matrix: np.ndarray  # [4, 4]: world to clip space
    half: float  # half the picture's side at the face


@dataclass(frozen=True)
class Film:
    """The response of the camera and the losses of the file, the same for a whole clip."""

    white_balance: tuple[float, float, float]
    exposure: float
    vignette: float
    grain: float
    saturation: float
    gamma: float
    softness: float  # pixels of the larger picture
    scale: float  # of the picture as it was once stored: below 1 it lost detail
    quality: int  # of the JPEG it was once; 100: none

    def response(self) -> dict[str, object]:
        """The uniforms of shaders/film.frag."""
        return {name: value for name, value in vars(self).items() if name not in ("scale", "quality")}


@dataclass(frozen=True)
class Shot:
    """How a person is photographed."""

    light: Light
    camera: Camera
    film: Film
    scenery: np.ndarray  # [H, W, 3] uint8
    scenery_gain: tuple[float, float, float]


def sample_shot(rng: np.random.Generator) -> Shot:
    """Lights, camera, film and background."""
    gain = np.exp(rng.normal(0, 0.15, 3)) * rng.uniform(0.35, 1.0)
    return Shot(sample_light(rng), sample_camera(rng), sample_film(rng), sample_scenery(rng), tuple(map(float, gain)))


def sample_light(rng: np.random.Generator) -> Light:
    """A key light, a weaker one from the other side, at times one from behind; normalised to one exposure."""
    key, azimuth, elevation = rng.uniform(0.5, 2.4), rng.uniform(-1.2, 1.2), rng.uniform(-0.05, 1.0)
    behind = direction(rng.choice([-1, 1]) * rng.uniform(1.9, 2.7), rng.uniform(0, 0.7))
    other = direction(-azimuth * rng.uniform(0.5, 1.3) + rng.normal(0, 0.3), rng.uniform(-0.2, 0.6))
    colours = np.array(
        [
            _warm(rng.normal(0, 0.3)) * key,
            _warm(rng.normal(0, 0.4)) * rng.uniform(0.05, 0.5),
            _warm(rng.normal(0, 0.5)) * rng.choice([0, rng.uniform(0.2, 1.4)]),
        ]
    )
    ambient = rng.uniform(0.25, 0.9)
    sky = _warm(rng.normal(-0.1, 0.25)) * ambient
    ground = _warm(rng.normal(0.25, 0.3)) * ambient * rng.uniform(0.3, 0.7)
    total = np.mean(sky + ground) / 2 + colours.mean(1) @ np.array([0.75, 0.6, 0.25])
    return Light(
        np.array([direction(azimuth, elevation), other, behind]), colours / total, sky / total, ground / total
    )  # fmt: skip


def _warm(amount: float) -> np.ndarray:
    return np.array([1 + 0.35 * amount, 1.0, 1 - 0.35 * amount])


def sample_wide_shot(rng: np.random.Generator) -> Shot:
    """A clean picture in which all of the hair is seen, before black."""
    film = Film((1.0, 1.0, 1.0), 1.15, 0.0, 0.0, 1.0, 2.2, 0.7, 1.0, 100)
    camera = sample_camera(rng, WIDE, WIDE_TARGET)
    return Shot(sample_light(rng), camera, film, np.zeros((4, 4, 3), np.uint8), (1.0, 1.0, 1.0))


def sample_camera(
    rng: np.random.Generator, halves: tuple[float, float] = USUAL, target_y: tuple[float, float] = USUAL_TARGET
) -> Camera:
    """A long or a shorter lens, a closer or a wider view, from about the front.

    halves: half the picture's side at the face; target_y: what is in the picture's middle; bounds, in units of Head.
    """
    field = np.radians(rng.choice([rng.uniform(10, 20), rng.uniform(20, 38)]))
    half = rng.uniform(*halves)
    distance = half / np.tan(field / 2)
    target = np.array([rng.normal(0, 0.08), rng.uniform(*target_y), TARGET_Z])
    eye = target + distance * direction(rng.normal(0, 0.13), rng.normal(0, 0.08))
    matrix = perspective(eye, target, field, max(distance - 6, 0.5), distance + 12)
    return Camera(eye.astype(np.float32), matrix, float(half))


def sample_film(rng: np.random.Generator) -> Film:
    """One camera's response."""
    return Film(
        white_balance=tuple(np.exp(rng.normal(0, 0.06, 3))),
        exposure=float(rng.uniform(0.95, 1.4)),
        vignette=float(rng.uniform(0, 0.5)),
        grain=float(rng.uniform(0, 0.05)),
        saturation=float(rng.uniform(0.8, 1.15)),
        gamma=float(rng.uniform(2.0, 2.4)),
        softness=float(rng.uniform(0.2, 1.2)),
        scale=float(rng.uniform(0.55, 1.0)) if rng.random() < 0.4 else 1.0,
        quality=int(rng.integers(55, 96)) if rng.random() < 0.6 else 100,
    )
