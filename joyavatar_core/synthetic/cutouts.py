"""People cut out of their background, with face positions: training data of the face locator and
the person finder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .clips import person
from .drawn.characters import Character, generator
from .drawn.figure import Moment, Portrait
from .labels import FaceLabels

STREAM = 9  # of a seed's random numbers
SMALL = 0.62  # of the usual zoom: all of a drawn person's hair is in the picture


class Cutout(NamedTuple):
    """picture: [S, S, 4] uint8, colours multiplied by the opacity, which is the last channel; points: [3, 2] float32,
    the eyes (the picture's left first) and the chin, in pixels."""

    picture: np.ndarray
    points: np.ndarray


def cutouts(seed: int, split: str, people: str, count: int, size: int = 192) -> Iterator[Cutout]:
    """One person in `count` expressions and poses. Raises AvatarError where people cannot be rendered."""
    rng = generator(seed, split, STREAM)
    who = person(seed, split, people)
    figure = _drawn(who, size) if isinstance(who, Character) else _rendered(who, size, rng)
    for _ in range(count):
        moment = _moment(rng)
        figure.set_backdrop((0, 0, 0))
        dark, labels = figure.draw(moment)
        figure.set_backdrop((255, 255, 255))
        light, _ = figure.draw(moment)
        difference = (light.astype(np.int16) - dark).mean(-1)
        seen_through = np.clip(difference / max(float(difference.max()), 1.0), 0, 1)
        yield Cutout(np.dstack([dark, (255 * (1 - seen_through)).round().astype(np.uint8)]), face_points(labels))


def face_points(labels: FaceLabels) -> np.ndarray:
    """Eyes and chin [3, 2]. The chin lies on the face box's lower edge, below the eyes as the head is tilted."""
    eyes = np.array(labels.eyes, np.float32).reshape(2, 2, 2).mean(1)
    middle, chin = eyes.mean(0), labels.face[3]
    across = eyes[1] - eyes[0]
    tilt = math.atan2(across[1], max(across[0], 1e-6)) if np.linalg.norm(across) > 1 else labels.pose[2]
    return np.vstack([eyes, (middle[0] - math.tan(tilt) * (chin - middle[1]), chin)]).astype(np.float32)


def _moment(rng: np.random.Generator) -> Moment:
    """A random expression with a wider range of poses than a talking head has."""
    near = rng.normal
    return Moment(
        yaw=float(np.clip(near(0, 0.35), -0.8, 0.8)), pitch=float(np.clip(near(0, 0.15), -0.35, 0.35)),
        roll=float(near(0, 0.05)),
        gaze_x=float(np.clip(near(0, 0.4), -1, 1)), gaze_y=float(np.clip(near(0, 0.3), -1, 1)),
        lid=float(rng.uniform(0.1, 1.15)), lift=float(near(0, 0.3)), smile=float(np.clip(near(0.3, 0.5), -1, 1)),
        open=max(float(near(0, 0.4)), 0.0), spread=float(near(0, 0.4)), round=max(float(near(0, 0.4)), 0.0),
        teeth=0.5 * float(rng.random()),
    )  # fmt: skip


def _drawn(character: Character, size: int) -> Portrait:
    return Portrait(dataclasses.replace(character, zoom=SMALL * character.zoom), size)


def _rendered(person: object, size: int, rng: np.random.Generator):
    from .rendered.figure import RenderedFigure
    from .rendered.shot import sample_wide_shot

    return RenderedFigure(person, size, sample_wide_shot(rng))
