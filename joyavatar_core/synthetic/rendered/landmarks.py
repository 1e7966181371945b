"""Labels of a frame, read from the posed mesh."""

from __future__ import annotations

import numpy as np

from ..labels import Box, FaceLabels
from .bundle import Bundle
from .head import Head
from .transforms import project

# Numbers of vertices in MakeHuman's mesh; those of the lips lie on the middle line, from above downwards.
UPPER_LIP = (467, 509, 468, 474, 520)
LOWER_LIP = (523, 493, 494, 513, 495)
MOUTH_CORNER = 7249  # at +x, as are the lids; the other side is mirrored
UPPER_LID, LOWER_LID = 13352, 13370
EYE_REACH = 1.3  # radii of the eyeball: skin this near to its centre belongs to the eye
MOUTH_BOX = (1.5, 0.32)  # half width in half widths of the mouth, half height in heights of the face below the eyes


class Landmarks:
    """The vertices that labels are read from, of one head."""

    def __init__(self, head: Head) -> None:
        bundle = head.bundle
        mirrored = bundle.mirrored
        corner, upper, lower = map(bundle.vertex, (MOUTH_CORNER, UPPER_LID, LOWER_LID))
        self.upper_lip, self.lower_lip = (list(map(bundle.vertex, lip)) for lip in (UPPER_LIP, LOWER_LIP))
        self.corners = [corner, mirrored(corner)]
        self.lids = [(mirrored(upper), mirrored(lower)), (upper, lower)]
        skin = np.unique(bundle.skin.source)
        at = head.positions[skin]
        self.eyes = [
            skin[(np.linalg.norm(at - eye, axis=1) < EYE_REACH * head.eye_radius) & (at[:, 2] > eye[2])]
            for eye in head.eyes[::-1]
        ]
        self.face = skin[np.isin(skin, _face_vertices(bundle)) & (at[:, 2] > -0.75)]
        self.open_lids = self._lids_apart(head.positions)
        self._used = np.unique(np.concatenate([*self.eyes, self.face, self.upper_lip, self.lower_lip, self.corners]))

    def read(
        self, posed: np.ndarray, moved: np.ndarray, camera: np.ndarray, size: int, pose: tuple[float, float, float]
    ) -> FaceLabels:
        """Labels of posed vertices [N, 3], `moved` as the head is turned, seen by `camera` in `size` pixels."""
        flat = np.zeros((len(moved), 2), np.float32)
        flat[self._used] = project(camera, moved[self._used], size)
        corners = flat[self.corners]
        across = corners[0] - corners[1]
        width = float(np.linalg.norm(across))
        down = np.array([-across[1], across[0]]) / max(width, 1e-6)
        gap = max(float((flat[self.lower_lip] @ down).min() - (flat[self.upper_lip] @ down).max()), 0.0)
        left, right = (_box(flat[eye]) for eye in self.eyes)
        face = _box(flat[self.face])
        middle = flat[self.upper_lip + self.lower_lip].mean(0) * 0.5 + corners.mean(0) * 0.5
        # Not less than a quarter of the face: pursed lips are to widen again, and a turned mouth to come back.
        reach_x = MOUTH_BOX[0] * max(width, 0.25 * (face[2] - face[0])) / 2
        reach_y = MOUTH_BOX[1] * (face[3] - (left[1] + left[3] + right[1] + right[3]) / 4)
        x, y = map(float, middle)
        lids = np.maximum(self._lids_apart(posed), 0) / self.open_lids
        return FaceLabels(
            gap, width, (x - reach_x, y - reach_y, x + reach_x, y + reach_y), (left, right),
            tuple(map(float, lids)), face, pose,
        )  # fmt: skip

    def _lids_apart(self, positions: np.ndarray) -> np.ndarray:
        """[2]: how far each upper lid is above the lower; closed lids overlap."""
        return np.array([positions[upper, 1] - positions[lower, 1] for upper, lower in self.lids])


def _box(points: np.ndarray) -> Box:
    return tuple(map(float, (*points.min(0), *points.max(0))))


def _face_vertices(bundle: Bundle) -> np.ndarray:
    """Base vertices of the face: not under the hair, and above the chin's lower edge."""
    skin = bundle.skin
    middle = (bundle.base[bundle.eyes[0]].mean(0) + bundle.base[bundle.eyes[1]].mean(0)) / 2
    at = bundle.base[skin.source] - middle
    face = (bundle.mask(1) < 0.5) & (at[:, 1] > -1.12) & (at[:, 2] > -1.0) & (np.abs(at[:, 0]) < 0.72)
    return skin.source[face]
