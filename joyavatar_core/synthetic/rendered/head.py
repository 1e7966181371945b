"""One person's geometry: base vertices for any weights of the face units.

The origin lies between the eyes; x points to the picture's right, y up, z to the camera. Every face is scaled to be
`FACE` high from the eyes to the chin.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .bundle import Bundle

FACE = 1.08  # decimetres from the eyes to the chin


class Head:
    """Build once a person; `pose` may then be called with any weights."""

    def __init__(self, bundle: Bundle, morphs: Mapping[str, float]) -> None:
        base = bundle.base.copy()
        for name, weight in morphs.items():
            base += np.float32(weight) * bundle.morphs[name].astype(np.float32)
        eyes = [base[ball].mean(0) for ball in bundle.eyes]
        middle = (eyes[0] + eyes[1]) / 2
        scale = FACE / (middle[1] - _chin(base[bundle.skin_triangles.ravel()], middle)[1])
        self.bundle = bundle
        self.positions = ((base - middle) * scale).astype(np.float32)  # [N, 3], at rest
        self.eyes = np.array([(eye - middle) * scale for eye in eyes], np.float32)  # [2, 3]
        self.eye_radius = float(np.linalg.norm(self.positions[bundle.eyes[0]] - self.eyes[0], axis=1).mean())
        # Only the vertices that some unit moves are computed for a frame.
        self._moving = np.flatnonzero(np.abs(bundle.unit_moves).max((0, 2)) > 0)
        self._moves = (bundle.unit_moves[:, self._moving] * np.float32(scale)).reshape(len(bundle.unit_moves), -1)
        self._spread = bundle.spread()

    def pose(self, units: np.ndarray) -> np.ndarray:
        """[N, 3] float32 vertices for the weights [52] of the face units."""
        posed = self.positions.copy()
        used = np.flatnonzero(units)
        posed[self._moving] += (units[used].astype(np.float32) @ self._moves[used]).reshape(-1, 3)
        return posed

    def normals(self, positions: np.ndarray) -> np.ndarray:
        """[N, 3] unit normals of the skin."""
        corners = positions[self.bundle.skin_triangles]
        facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return unit(self._spread @ facing).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] at length 1; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _chin(skin: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The foremost low point of the skin below the middle of the eyes, in decimetres."""
    below = middle[1] - skin[:, 1]
    central = skin[(np.abs(skin[:, 0]) < 0.12) & (skin[:, 2] > middle[2] - 0.35) & (below > 0.7) & (below < 1.6)]
    return central[np.argmax(central[:, 2] - 1.2 * np.abs(central[:, 1] - middle[1] + FACE))]
