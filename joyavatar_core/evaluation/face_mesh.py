"""Face landmarks: the 478 points of mediapipe's face mesh, which this project did not train.

mediapipe 0.10.14 is the last version whose models come inside its wheel; it is the extra `judge`, for development.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from dataclasses import dataclass

import numpy as np

from ..errors import AvatarError

POINTS = 478
# Points of the mesh that speech and expression hardly move: eye corners, bridge and wings of the nose, temples, brow.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 98, 327, 127, 356, 234, 454, 10, 151)
EYES = (33, 263)  # outer corners


@dataclass(frozen=True)
class Landmarks:
    """points: [T, 478, 3] float32, pixels (z towards the viewer is negative, in the scale of x); found: [T] bool.

    Where no face was found the points are NaN.
    """

    points: np.ndarray
    found: np.ndarray


class FaceMesh:
    """mediapipe's face mesh, every frame for itself. Raises AvatarError where mediapipe is not installed."""

    def __init__(self) -> None:
        os.environ.setdefault("GLOG_minloglevel", "3")
        try:
            with _quiet():
                from mediapipe.python.solutions.face_mesh import FaceMesh as Mesh
        except ImportError:
            raise AvatarError(
                "The judge needs mediapipe, which is not installed; install the extra: pip install -e .[judge]"
            ) from None
        self._mesh = Mesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)

    def __call__(self, frames: np.ndarray) -> Landmarks:
        """The largest-scored face of every frame of a video [T, H, W, 3] uint8."""
        height, width = frames.shape[1:3]
        points = np.full((len(frames), POINTS, 3), np.nan, np.float32)
        for frame, found in zip(frames, points, strict=True):
            with _quiet():
                faces = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            if faces:
                found[:] = [(p.x * width, p.y * height, p.z * width) for p in faces[0].landmark]
        return Landmarks(points, np.isfinite(points[:, 0, 0]))


@contextlib.contextmanager
def _quiet():
    """mediapipe writes what it loads to the log of absl and warns of its own calls."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
