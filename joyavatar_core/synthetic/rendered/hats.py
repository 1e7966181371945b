"""Hats of the bundle, and beanies and caps: the skin of the upper head, pushed outwards, and hair tucked below."""

from __future__ import annotations

import numpy as np

from .head import Head
from .mesh import Mesh, fitted, smooth_normals
from .studio import WHITE

HATS = {"none": 0.88, "beanie": 0.04, "cap": 0.04, "fedora": 0.04}
RIM_HEIGHT, RIM_SLOPE = 0.43, 0.36  # of the rim above the eyes, and how it falls towards the back
CENTRE = np.array([0.0, 0.25, -0.45])  # of the head


def above_rim(positions: np.ndarray) -> np.ndarray:
    """[V]: how far points are above the rim of a hat."""
    return positions[:, 1] - RIM_HEIGHT - RIM_SLOPE * np.minimum(positions[:, 2], 0.2)


def hat(
    rng: np.random.Generator, head: Head, kind: str, dye: tuple[float, float, float], uniforms: dict[str, object]
) -> Mesh:
    """A hat of one of the kinds, which turns with the head."""
    if kind == "fedora":
        mesh = fitted(head, "hat.fedora", "cloth", WHITE, dye)
        mesh.uniforms = uniforms
        return mesh
    skin = head.bundle.skin
    positions = head.positions[skin.source]
    height = above_rim(positions)
    faces = skin.triangles[(height[skin.triangles] > 0).any(1)]
    used, triangles = np.unique(faces, return_inverse=True)
    triangles, height = triangles.reshape(-1, 3), height[used]
    below = np.minimum(height, 0)  # drawn up to the rim, so that it is even
    positions = positions[used] - np.stack([0 * below, below, 0 * below], 1)
    height = height - below
    out = positions - CENTRE
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    rim = np.clip(1 - height / 0.2, 0, 1) * (0.02 if kind == "beanie" else -0.03)  # turned up, or fitting
    thickness = rng.uniform(0.06, 0.09) + rim + rng.uniform(0, 0.15) * np.clip(out[:, 1], 0, 1) ** 3
    crown = positions + out * thickness[:, None]
    if kind == "cap":
        brim, brim_triangles = _brim(rng, crown[height < 0.15])
        triangles = np.concatenate([triangles, brim_triangles + len(crown)])
        crown = np.concatenate([crown, brim])
    extra = np.ones((len(crown), 3), np.float32)
    return Mesh(
        "hat", "cloth", WHITE, triangles, crown[:, :2] * 0.4, crown.astype(np.float32),
        smooth_normals(crown, triangles), extra, dye, uniforms=uniforms,
    )  # fmt: skip


def _brim(rng: np.random.Generator, rim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A peak over the forehead: upper and lower side of a curved half disc."""
    front = rim[rim[:, 2] > rim[:, 2].max() - 0.25]
    width, y, z = np.abs(front[:, 0]).max(), front[:, 1].mean(), front[:, 2].max() - 0.1
    u, v = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(0, 1, 6))
    reach = rng.uniform(0.35, 0.5) * np.sqrt(np.clip(1 - u**2, 0, 1))
    depth = z - 0.45 * u**2 + v * (reach + 0.05)
    sheet = np.stack([width * u, y - 0.14 * u**2 - 0.12 * v**2, depth], -1).reshape(-1, 3)
    i = (np.arange(5)[:, None] * 15 + np.arange(14)).ravel()
    upper = np.concatenate([np.stack([i, i + 15, i + 1], 1), np.stack([i + 1, i + 15, i + 16], 1)])
    lower = upper[:, ::-1] + len(sheet)
    return np.concatenate([sheet, sheet - [0, 0.025, 0]]), np.concatenate([upper, lower])


def tucked(hair: Mesh) -> Mesh:
    """Hair whose part above the rim is moved into the hat."""
    inside = np.clip(above_rim(hair.positions) / 0.15 + 0.6, 0, 1)[:, None]
    shrunk = CENTRE + (hair.positions - CENTRE) * 0.72
    hair.positions = (hair.positions * (1 - inside) + shrunk * inside).astype(np.float32)
    return hair
