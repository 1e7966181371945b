"""Ambient occlusion: the share of the sky that each vertex sees, from depth maps in many directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .transforms import parallel

if TYPE_CHECKING:
    from .scene import Scene

DIRECTIONS = 40
CENTRE, HALF, DEPTH = np.array([0, -0.5, -0.5]), 3.2, 6.0
BIAS = 0.004


def seen_sky(scene: Scene) -> list[np.ndarray]:
    """[V] 0..1 for each mesh of the scene."""
    i = np.arange(DIRECTIONS) + 0.5
    polar, around = np.arccos(1 - 2 * i / DIRECTIONS), np.pi * (1 + 5**0.5) * i  # Fibonacci's lattice on a sphere
    directions = np.stack([np.cos(around) * np.sin(polar), np.cos(polar), np.sin(around) * np.sin(polar)], 1)
    lit = [np.zeros(len(mesh.positions)) for mesh in scene.meshes]
    all_ = [np.full(len(mesh.positions), 1e-6) for mesh in scene.meshes]
    for towards in directions:
        matrix = parallel(towards, CENTRE, HALF, DEPTH)
        depth = scene.depth_from(matrix)
        side = len(depth)
        for k, mesh in enumerate(scene.meshes):
            at = (mesh.positions + 0.012 * mesh.normals) @ matrix[:3, :3].T + matrix[:3, 3]
            column, row = np.clip(((at[:, :2] * 0.5 + 0.5) * side).astype(int), 0, side - 1).T
            facing = mesh.normals @ towards
            facing = np.abs(facing) * 0.5 + 0.5 if mesh.material == "hair" else np.maximum(facing, 0)
            sky = facing * (0.6 + 0.4 * towards[1])
            lit[k] += sky * (at[:, 2] * 0.5 + 0.5 < depth[row, column] + BIAS)
            all_[k] += sky
    return [np.clip(some / every, 0, 1) for some, every in zip(lit, all_, strict=True)]
