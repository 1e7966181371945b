"""Rotations and projections as OpenGL wants them; matrices multiply column vectors."""

from __future__ import annotations

import numpy as np


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3] float32 from radians: about y (towards +x), then x, then z."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)


def direction(azimuth: float, elevation: float) -> np.ndarray:
    """[3] unit vector: azimuth from +z towards +x, elevation towards +y, in radians."""
    across = np.cos(elevation)
    return np.array([np.sin(azimuth) * across, np.sin(elevation), np.cos(azimuth) * across])


def perspective(eye: np.ndarray, target: np.ndarray, field: float, near: float, far: float) -> np.ndarray:
    """[4, 4] float32: world to clip space for a camera at `eye`; `field` is the vertical angle in radians."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = right, np.cross(right, forward), -forward
    view[:3, 3] = -view[:3, :3] @ eye
    k = 1 / np.tan(field / 2)
    depth = ((far + near) / (near - far), 2 * far * near / (near - far))
    return (np.array([[k, 0, 0, 0], [0, k, 0, 0], [0, 0, *depth], [0, 0, -1, 0]]) @ view).astype(np.float32)


def parallel(towards: np.ndarray, centre: np.ndarray, half: float, depth: float) -> np.ndarray:
    """[4, 4] float32: an orthographic view from the direction `towards`, `half` wide and `depth` deep each way."""
    forward = -np.asarray(towards) / np.linalg.norm(towards)
    up = [0, 1, 0] if abs(forward[1]) < 0.95 else [0, 0, 1]
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = right / half, np.cross(right, forward) / half, forward / depth
    view[:3, 3] = -view[:3, :3] @ centre
    return view.astype(np.float32)


def project(matrix: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """Where points [N, 3] fall in a picture of `size` pixels: [N, 2], x to the right and y down."""
    clip = points @ matrix[:, :3].T + matrix[:, 3]
    return (clip[:, :2] / clip[:, 3:] * [0.5, -0.5] + 0.5) * size
