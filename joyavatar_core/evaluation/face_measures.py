"""Figures of a talking face, from its landmarks and its pixels; lengths in distances between the outer eye corners.

All functions take `points` [T, 478, 3] as `Landmarks` has them and give NaN where no face was found.
"""

from __future__ import annotations

import numpy as np

from .face_mesh import EYES, RIGID
from .mouth_pixels import mouth_opening_from_pixels

INNER_LIPS = ((13, 14), (82, 87), (312, 317))  # upper and lower, at the middle and to either side
MOUTH_CORNERS = (61, 291)
CHIN, UNDER_NOSE = 152, 2
LIDS = ((159, 145), (386, 374))  # upper and lower, of each eye
EYE_CORNERS = ((33, 133), (362, 263))
EYE_REGION = (0.62, 0.30)  # size of the box around an eye
MOUTH_REGION = (0.80, 0.60)  # size of the box around the mouth
MOUTH_PATCH = (48, 64)  # pixels, height and width, that the mouth is looked at in
BELOW_EYES = 0.82  # the mouth's usual distance from the line between the eyes
FACE_PATCH = (96, 96)
FACE_REGION = (1.5, 1.7)
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
# What tells people apart and is at rest: oval above the jaw, brows, eyes' corners, nose.
SHAPE = (10, 338, 297, 284, 389, 454, 234, 162, 54, 67, 33, 133, 362, 263, 168, 6, 197, 195, 4, 98, 327, 2, 70, 105,
         107, 336, 334, 300)  # fmt: skip


def face_scale(points: np.ndarray) -> np.ndarray:
    """Distance between the outer eye corners in pixels, [T]; in depth, too, so that a turn does not change it."""
    return np.linalg.norm(points[:, EYES[0]] - points[:, EYES[1]], axis=-1)


def _distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1) / face_scale(points)


def lip_gap(points: np.ndarray) -> np.ndarray:
    """Height of the gap between the inner lips, [T]."""
    return np.mean([_distance(points, *pair) for pair in INNER_LIPS], axis=0)


def jaw_drop(points: np.ndarray) -> np.ndarray:
    """From under the nose to the chin, [T]: moves with the jaw, and does not depend on how lips are drawn."""
    return _distance(points, UNDER_NOSE, CHIN)


def mouth_width(points: np.ndarray) -> np.ndarray:
    """Between the corners of the mouth, [T]."""
    return _distance(points, *MOUTH_CORNERS)


def lid_opening(points: np.ndarray) -> np.ndarray:
    """Mean height of the eyes' openings as a share of their widths, [T]: 0.3 is an open eye, 0.1 a closed one."""
    return np.mean(
        [
            _distance(points, *lids) / _distance(points, *corners)
            for lids, corners in zip(LIDS, EYE_CORNERS, strict=True)
        ],
        axis=0,
    )


def head_pose(points: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in radians, [T, 3], of the mesh's own axes; pitch has a person's own offset."""
    across = points[:, (263, 454)].mean(1) - points[:, (33, 234)].mean(1)
    down = points[:, UNDER_NOSE] - points[:, 10]
    yaw = np.arctan2(across[:, 2], np.hypot(across[:, 0], across[:, 1]))
    pitch = np.arctan2(down[:, 2], np.hypot(down[:, 0], down[:, 1]))
    return np.stack([yaw, pitch, np.arctan2(across[:, 1], across[:, 0])], axis=1)


def patches(frames: np.ndarray, points: np.ndarray, centre: tuple[float, float], size: tuple[float, float],
            pixels: tuple[int, int]) -> np.ndarray:  # fmt: skip
    """The same part of the face in every frame, held still by the points that speech does not move.

    centre, size: (x, y) and (width, height) in the face's own axes, from the middle between the eyes. Returns
    [T, *pixels, 3] float32 in 0 ... 255, bilinear; NaN where no face was found.
    """
    from scipy.ndimage import map_coordinates

    height, width = pixels
    x = centre[0] + size[0] * ((np.arange(width) + 0.5) / width - 0.5)
    y = centre[1] + size[1] * ((np.arange(height) + 0.5) / height - 0.5)
    grid = np.stack(np.meshgrid(x, y), -1)  # [h, w, 2]
    shown = np.full((len(frames), height, width, 3), np.nan, np.float32)
    for frame, to_picture, patch in zip(frames, face_frames(points), shown, strict=True):
        if np.isfinite(to_picture).all():
            at = grid @ to_picture[:, :2].T + to_picture[:, 2] - 0.5
            for channel in range(3):
                patch[..., channel] = map_coordinates(
                    frame[..., channel].astype(np.float32), (at[..., 1], at[..., 0]), order=1, mode="nearest"
                )
    return shown


def face_frames(points: np.ndarray) -> np.ndarray:
    """Face axes -> picture, [T, 2, 3]: rotation, scale and the middle between the eyes, fitted to the rigid points.

    The rigid points' mean constellation is fitted to each frame's by least squares (a similarity), which trembles less
    than two corners do.
    """
    rigid = points[:, RIGID, :2].astype(np.float64)  # [T, R, 2]
    good = np.isfinite(rigid[:, 0, 0])
    frames = np.full((len(points), 2, 3), np.nan)
    if not good.any():
        return frames
    first = rigid[good][0]
    for _ in range(2):  # the mean of what is aligned to the first, then to that mean
        mean = np.mean([_similar(_fit(one, first), one) for one in rigid[good]], axis=0)
        first = mean
    left, right = (mean[RIGID.index(k)] for k in EYES)
    across, middle = right - left, (left + right) / 2
    scale = np.hypot(*across)
    own = np.array([[across[0], across[1]], [-across[1], across[0]]]) / scale**2  # turns the mean upright, width 1
    upright = (mean - middle) @ own.T
    frames[good] = [_fit(upright, one) for one in rigid[good]]
    return frames


def _fit(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] that takes source [R, 2] nearest to target [R, 2] (complex least squares)."""
    a, b = (p[:, 0] + 1j * p[:, 1] for p in (source, target))
    turn = np.vdot(a - a.mean(), b - b.mean()) / np.vdot(a - a.mean(), a - a.mean()).real
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _similar(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ transform[:, :2].T + transform[:, 2]


def mouth_patches(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mouth, held still, [T, 48, 64, 3] float32."""
    return patches(frames, points, (0.0, BELOW_EYES), MOUTH_REGION, MOUTH_PATCH)


def inner_mouth(mouths: np.ndarray) -> np.ndarray:
    """How much teeth and dark show in `mouth_patches`, [T], as a share of the patch: the mouth without landmarks.

    A landmarker fits lips where it expects them; this asks the pixels for the colours between the lips.
    """
    found = np.isfinite(mouths[:, 0, 0, 0])
    seen = np.full(len(mouths), np.nan)
    height, width = mouths.shape[1:3]
    if found.any():
        whole = np.array((0, 0, width, height), np.float32)
        pictures = mouths[found].round().clip(0, 255).astype(np.uint8)
        seen[found] = mouth_opening_from_pixels(pictures, whole) / (height * width)
    return seen


def darkness(mouths: np.ndarray) -> np.ndarray:
    """Share of `mouth_patches` that is much darker than the lips and skin around, [T]; of any colour and blur.

    Dark is less than 0.6 of the patch's median brightness. A beard or a shadow is dark all the time and adds a
    constant, which correlations do not see.
    """
    grey = mouths.mean(-1)
    middle = grey[:, :, grey.shape[2] // 5 : -grey.shape[2] // 5]
    usual = np.nanmedian(grey, axis=(1, 2), keepdims=True)
    dark = np.clip((0.75 - middle / usual) / 0.3, 0, 1)
    return dark.mean((1, 2))


def sharpness_around_eyes(frames: np.ndarray, points: np.ndarray, size: int = 48) -> np.ndarray:
    """Mean absolute Laplacian of both eyes' brightness at one scale of the face, [T], in grey levels."""
    edges = []
    for side in (-0.34, 0.34):
        eye = patches(frames, points, (side, 0.0), EYE_REGION, (round(size * EYE_REGION[1] / EYE_REGION[0]), size))
        grey = eye.mean(-1)
        inner = grey[:, 1:-1, 1:-1]
        laplacian = 4 * inner - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
        edges.append(np.abs(laplacian).mean((1, 2)))
    return np.mean(edges, axis=0)


def face_shape(points: np.ndarray) -> np.ndarray:
    """What tells people apart at rest, [T, len(SHAPE) * 3]: the points of SHAPE without size, place and turn."""
    shape = points[:, SHAPE].astype(np.float64)
    shape = shape - shape.mean(1, keepdims=True)
    shape /= np.linalg.norm(shape, axis=(1, 2), keepdims=True)
    good = np.isfinite(shape[:, 0, 0])
    if good.any():
        reference = shape[good][0]
        shape[good] = [one @ _rotation(one, reference) for one in shape[good]]
    return shape.reshape(len(shape), -1)


def _rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that takes source [N, 3] nearest to target (Kabsch), applied from the right."""
    u, _, vt = np.linalg.svd(source.T @ target)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    return u @ vt


def face_colours(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean and deviation of each colour within the face (eyes and mouth among it), [T, 6], in grey levels."""
    face = patches(frames, points, (0.0, 0.35), FACE_REGION, FACE_PATCH)
    flat = face.reshape(len(face), -1, 3)
    return np.concatenate([flat.mean(1), flat.std(1)], axis=1)
