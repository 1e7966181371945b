"""The figure of one rendered person, with the interface of `drawn.figure.Portrait`."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from ..labels import FaceLabels
from ..moment import Moment
from .bundle import load_bundle
from .expression import face_units, head_pose
from .person import Person
from .scene import Scene
from .shot import Film, Shot, sample_shot
from .studio import Studio

SUPERSAMPLING = 1.5
SHOT = 1  # of a person's streams of random numbers; 0 is for its details


class RenderedFigure:
    """Build once a person; `draw` may then be called for any moments in any order.

    rest: the face at rest, the person's own; it may be replaced between pictures.
    """

    def __init__(self, person: Person, size: int = 256, shot: Shot | None = None) -> None:
        self.person, self.rest = person, person.rest
        self._shot = shot or sample_shot(np.random.default_rng([*person.seed, SHOT]))
        self._scene = Scene(_studio(size), person, self._shot)

    def set_backdrop(self, colour: tuple[int, int, int]) -> None:
        """Use a plain background colour, 0 ... 255, from now on. The film response applies to it, too."""
        self._scene.set_backdrop(colour)

    def draw(self, moment: Moment) -> tuple[np.ndarray, FaceLabels]:
        """The picture, uint8 [size, size, 3], and its labels."""
        units = face_units(moment, self._scene.studio.bundle.units, self.rest)
        grain = float(np.abs(np.array(moment)).sum() * 97 % 1)  # the same moment gives the same picture
        picture, labels = self._scene.frame(units, head_pose(moment), grain)
        return stored(picture, self._shot.film), labels


def stored(picture: np.ndarray, film: Film) -> np.ndarray:
    """The picture [S, S, 3] with the losses of a smaller or a more compressed file."""
    if film.scale == 1 and film.quality == 100:
        return np.ascontiguousarray(picture)
    image = Image.fromarray(picture)
    side = image.width
    if film.scale < 1:
        image = image.resize((round(side * film.scale),) * 2, Image.Resampling.BOX)
    if film.quality < 100:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=film.quality)
        image = Image.open(file)
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))


@lru_cache(maxsize=2)
def _studio(size: int) -> Studio:
    return Studio(load_bundle(), size, SUPERSAMPLING)
