"""Frames of glasses: two rings, a bridge and two temples, as tubes around a person's eyes."""

from __future__ import annotations

import numpy as np

from .head import Head
from .mesh import Mesh, smooth_normals

SIDES = 6  # of a tube
RING = 28  # points of a rim


def frame_of_glasses(rng: np.random.Generator, head: Head) -> Mesh:
    """A pair that sits on the head's nose."""
    width, flatness, thickness = rng.uniform(0.2, 0.27), rng.uniform(0.66, 1.0), rng.uniform(0.008, 0.02)
    squareness = 2 / rng.uniform(2, 4)
    front = float(head.eyes[:, 2].max()) + head.eye_radius + 0.12
    t = np.linspace(0, 2 * np.pi, RING, endpoint=False)
    across, up = (np.sign(f) * np.abs(f) ** squareness for f in (np.cos(t), np.sin(t)))
    tubes, hinges = [], []
    for eye, side in zip(head.eyes, (1, -1), strict=True):
        x = eye[0] * 1.04
        bent = front - 0.12 * np.maximum(side * np.cos(t), 0) ** 2
        rim = np.stack([x + width * across, eye[1] - 0.03 + width * flatness * up, bent], 1)
        tubes.append(_tube(rim, thickness, closed=True))
        hinges.append((x, eye[1]))
    left, right = hinges[0][0] - width, hinges[1][0] + width
    arch = hinges[0][1] + 0.02 + 0.04 * np.sin(np.linspace(0, np.pi, 8))
    tubes.append(_tube(np.stack([np.linspace(left, right, 8), arch, np.full(8, front)], 1), thickness))
    for (x, y), side in zip(hinges, (1, -1), strict=True):
        start, end = (x + side * width, y + 0.03, front - 0.12), (side * 0.82, y + 0.02, -0.75)
        tubes.append(_tube(np.linspace(start, end, 10), thickness))
    first = np.cumsum([0, *(len(points) for points, _ in tubes)])
    positions = np.concatenate([points for points, _ in tubes]).astype(np.float32)
    triangles = np.concatenate([corners + k for (_, corners), k in zip(tubes, first, strict=False)])
    colour = np.array([0.012, 0.01, 0.01]) if rng.random() < 0.6 else rng.uniform(0.02, 0.3, 3)
    return Mesh(
        "glasses", "gloss", "teeth.jpg", triangles, np.zeros((len(positions), 2)), positions,
        smooth_normals(positions, triangles), np.ones((len(positions), 3), np.float32), tuple(map(float, colour)),
    )  # fmt: skip


def _tube(path: np.ndarray, thickness: float, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N * SIDES, 3] and triangles of a tube along a path [N, 3]."""
    count = len(path)
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    out = np.cross(along, [0.0, 0.0, 1.0])
    flat = np.linalg.norm(out, axis=1, keepdims=True)
    out = np.where(flat > 0.1, out / np.maximum(flat, 1e-9), [0.0, 1.0, 0.0])
    other = np.cross(along, out)
    angle = np.arange(SIDES) * 2 * np.pi / SIDES
    ring = np.cos(angle)[:, None] * out[:, None] + np.sin(angle)[:, None] * other[:, None]
    i, k = np.meshgrid(np.arange(count if closed else count - 1), np.arange(SIDES), indexing="ij")
    a, b = i * SIDES + k, i * SIDES + (k + 1) % SIDES
    c, d = (i + 1) % count * SIDES + k, (i + 1) % count * SIDES + (k + 1) % SIDES
    corners = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return (path[:, None] + thickness * ring).reshape(-1, 3), corners
