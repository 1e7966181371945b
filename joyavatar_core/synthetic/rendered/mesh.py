"""Triangles that are drawn with one material."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from .head import Head, unit

# Drawn in this order: what hides most first, what is blended last.
MATERIALS = ("hair", "fur", "cloth", "gloss", "skin", "eye", "teeth", "tongue", "decal")


@dataclass(frozen=True)
class JawMotion:
    """How a hard part of a mesh goes with the jaw, as one piece: it is turned about its pivot and shifted, both [3], in
    proportion to how far the jaw is open. Vertices [V] that are not `lower` stay with the skull.
    """

    lower: np.ndarray
    pivot: np.ndarray
    turn: np.ndarray  # rotation vector, radians, of an open jaw
    shift: np.ndarray

    def moved(self, positions: np.ndarray, opened: float) -> np.ndarray:
        """Positions [V, 3] with the jaw opened, 0 ... 1."""
        moved = positions.copy()
        turned = Rotation.from_rotvec(opened * self.turn).apply(positions[self.lower] - self.pivot)
        moved[self.lower] = turned + self.pivot + opened * self.shift
        return moved


@dataclass
class Mesh:
    """A part of the scene; `extra` [V, 3]: sky seen, share of the head's motion, and what the material makes of it."""

    name: str  # of the part it follows, or a name of its own
    material: str
    texture: str
    triangles: np.ndarray  # [F, 3]
    uv: np.ndarray  # [V, 2]
    positions: np.ndarray  # [V, 3]
    normals: np.ndarray  # [V, 3]
    extra: np.ndarray  # [V, 3]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    follows_face: bool = False  # its vertices are fitted anew for every frame
    shadow: bool = True
    offset: np.ndarray | None = None  # [V, 3] added to what is fitted
    jaw: JawMotion | None = None  # it goes with the jaw instead of the face
    on_skin: tuple[np.ndarray, np.ndarray] | None = None  # skin vertices [V] that it hangs over, and how high [V]
    uniforms: dict[str, object] = field(default_factory=dict)  # what else its material is told


def nearest_first(mesh: Mesh) -> Mesh:
    """The same mesh with its triangles ordered from the camera away: what they hide need not be shaded."""
    depth = mesh.positions[mesh.triangles][..., 2].mean(1)
    mesh.triangles = mesh.triangles[np.argsort(-depth, kind="stable")]
    return mesh


def with_head(positions: np.ndarray) -> np.ndarray:
    """[V] share of the head's motion: 1 at the head, 0 below the neck."""
    x = np.clip(positions[:, 1] + 0.45 * positions[:, 2] + 2.0, 0, 1)
    return x * x * (3 - 2 * x)


def smooth_normals(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """[V, 3] unit normals; vertices at one place share theirs."""
    place = np.unique(np.round(positions, 4), axis=0, return_inverse=True)[1].ravel()
    corners = positions[triangles]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((place.max() + 1, 3))
    for k in range(3):
        np.add.at(total, place[triangles[:, k]], facing)
    return unit(total[place])


def fitted(
    head: Head, name: str, material: str, texture: str, tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    follows: bool = False,
) -> Mesh:  # fmt: skip
    """A part of the bundle, fitted to the head at rest."""
    part = head.bundle.parts[name]
    positions = part.fit(head.positions).astype(np.float32)
    return Mesh(
        name, material, texture, part.triangles, part.uv, positions, smooth_normals(positions, part.triangles),
        np.ones((len(positions), 3), np.float32), tint, follows, shadow=material not in ("decal", "teeth", "tongue"),
    )  # fmt: skip
