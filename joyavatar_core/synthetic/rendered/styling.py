"""Restyles mesh hair: a fringe that leaves the eyes free, another length, volume and waves."""

from __future__ import annotations

import numpy as np

from .head import Head
from .mesh import Mesh, smooth_normals, with_head

FRINGE = 0.36  # the height at which hair before the face ends, above the eyes
EARS = -0.3  # the height below which hair is long


def mesh_hair(rng: np.random.Generator, head: Head, name: str, mirrored: bool) -> Mesh:
    """The bundle's hair `name`, fitted to the head and restyled."""
    part = head.bundle.parts[f"hair.{name}"]
    positions = part.fit(head.positions)
    triangles = part.triangles
    if mirrored:
        positions[:, 0] *= -1
        triangles = triangles[:, ::-1]
    positions = _wave(rng, _lengthen(rng, _raise_fringe(positions, FRINGE + rng.uniform(-0.02, 0.1))))
    extra = np.ones((len(positions), 3), np.float32)
    extra[:, 1] = with_head(positions)
    return Mesh(
        f"hair.{name}", "hair", f"hair.{name}.webp", triangles, part.uv, positions.astype(np.float32),
        smooth_normals(positions, triangles), extra,
    )  # fmt: skip


def _raise_fringe(positions: np.ndarray, height: float) -> np.ndarray:
    """Hair that hangs before the face is drawn up above the eyes, and aside beside them."""
    x, y, z = positions.T
    before = np.clip((z + 0.15) / 0.15, 0, 1) * np.clip((0.78 - np.abs(x)) / 0.12, 0, 1)
    limit = height - 0.22 * np.clip(np.abs(x) / 0.7, 0, 1) ** 4
    below = np.minimum(y - limit, 0)
    return np.stack([x, y - 0.96 * below * before, z], 1)


def _lengthen(rng: np.random.Generator, positions: np.ndarray) -> np.ndarray:
    """Hair below the ears longer or shorter, and all of it fuller or flatter."""
    x, y, z = positions.T
    y = np.where(y < EARS, EARS + (y - EARS) * rng.uniform(0.55, 1.25), y)
    fuller = 1 + rng.uniform(-0.02, 0.1) * np.clip((y + 0.6) / 0.6, 0, 1)
    wider = fuller + rng.uniform(-0.06, 0.15) * np.clip((EARS - y) / 0.8, 0, 1)
    middle = -0.45
    return np.stack([x * wider, np.where(y > 0.2, 0.2 + (y - 0.2) * fuller, y), middle + (z - middle) * fuller], 1)


def _wave(rng: np.random.Generator, positions: np.ndarray) -> np.ndarray:
    """Waves that grow towards the tips."""
    if rng.random() < 0.4:
        return positions
    size, length, phase = rng.uniform(0.02, 0.06), rng.uniform(6, 14), rng.uniform(0, 6.28)
    x, y, z = positions.T
    grown = size * np.clip((0.3 - y) / 0.8, 0, 1)
    turn = length * y + phase + 3 * np.sin(2.3 * x + 1.7 * z)
    return np.stack([x + grown * np.sin(turn), y, z + grown * np.cos(turn)], 1)
