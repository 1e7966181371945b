"""The meshes of one person: what to draw, in which material, fitted to the head at rest."""

from __future__ import annotations

import numpy as np

from .bundle import Part
from .glasses import frame_of_glasses
from .head import Head
from .mesh import Mesh, smooth_normals, with_head
from .person import Person
from .strips import grow, sample_style

TEETH_TINT, TONGUE_TINT = (0.82, 0.78, 0.70), (0.75, 0.5, 0.5)
BROW_TINT, LASH_TINT = (0.8,) * 3, (0.15,) * 3
FRONT_TEETH = 0.42  # how deep the row of teeth is that is ever seen


def person_meshes(person: Person, head: Head) -> list[Mesh]:
    """Everything but the hair's and the glasses' details follows the seed through `person`."""
    bundle, rng = head.bundle, np.random.default_rng(person.seed)
    meshes = [
        _cloth(person, head),
        _skin(person, head),
        _fitted(head, "eyes", "eye", f"eye.{person.iris}.jpg"),
        _teeth(head),
        _tongue(head),
        _fitted(head, person.brows, "decal", f"{person.brows}.webp", BROW_TINT, follows=True),
        _fitted(head, person.lashes, "decal", f"{person.lashes}.webp", LASH_TINT, follows=True),
    ]
    kind, _, name = person.hair.partition(" ")
    if kind == "mesh":
        meshes.append(_mesh_hair(head, f"hair.{name}", person.hair_mirrored))
    elif kind == "grown":
        meshes.append(grow(rng, head, bundle.mask(1), sample_style(rng, name)))
    if person.glasses:
        meshes.append(frame_of_glasses(rng, head))
    return meshes


def _fitted(
    head: Head, name: str, material: str, texture: str, tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    follows: bool = False,
) -> Mesh:  # fmt: skip
    part: Part = head.bundle.parts[name]
    positions = part.fit(head.positions).astype(np.float32)
    return Mesh(
        name, material, texture, part.triangles, part.uv, positions, smooth_normals(positions, part.triangles),
        np.ones((len(positions), 3), np.float32), tint, follows,
    )  # fmt: skip


def _cloth(person: Person, head: Head) -> Mesh:
    name = f"cloth.{person.clothes}"
    mesh = _fitted(head, name, "cloth", f"{name}.jpg", person.cloth_colour)
    mesh.extra[:, 1] = 0
    return mesh


def _skin(person: Person, head: Head) -> Mesh:
    mesh = _fitted(head, "skin", "skin", f"skin.{person.skins[0]}.jpg", follows=True)
    mesh.normals = head.normals(head.positions)[head.bundle.skin.source]
    mesh.extra[:, 1] = with_head(mesh.positions)
    mesh.extra[:, 2] = beard_region(mesh.positions, person.beard_shape)
    y, z = mesh.positions[mesh.triangles][..., 1], mesh.positions[mesh.triangles][..., 2]
    unseen = ((y < -2.05) & (z < -0.55)).all(1) | (y < -2.9).all(1)  # below the clothes
    mesh.triangles = mesh.triangles[~unseen]
    return mesh


def _teeth(head: Head) -> Mesh:
    mesh = _fitted(head, "teeth", "teeth", "teeth.jpg", TEETH_TINT, follows=True)
    depth = mesh.positions[:, 2].max() - mesh.positions[:, 2]
    mesh.triangles = mesh.triangles[(depth[mesh.triangles] < FRONT_TEETH).any(1)]
    mesh.extra[:, 2] = 0.36 - depth
    return mesh


def _tongue(head: Head) -> Mesh:
    mesh = _fitted(head, "tongue", "tongue", "tongue.jpg", TONGUE_TINT, follows=True)
    mesh.extra[:, 2] = mesh.positions[:, 2] - mesh.positions[:, 2].max() + 0.36
    return mesh


def _mesh_hair(head: Head, name: str, mirrored: bool) -> Mesh:
    mesh = _fitted(head, name, "hair", f"{name}.webp")
    mesh.extra[:, 1] = with_head(mesh.positions)
    if mirrored:
        for vectors in (mesh.positions, mesh.normals):
            vectors[:, 0] *= -1
        mesh.triangles = mesh.triangles[:, ::-1]
    return mesh


def beard_region(positions: np.ndarray, shape: int) -> np.ndarray:
    """[V] 0..1: where a beard grows; 0 a short full beard, 1 and 3 a full one, 2 on the chin only."""
    x, y, z = positions.T
    ramp = lambda value, width: np.clip(value / width, 0, 1)  # noqa: E731
    jaw = ramp(-0.62 - y, 0.22) * ramp(y + 1.55, 0.25) * ramp(z + 0.95, 0.4)
    beside = np.abs(x) - 0.45
    whiskers = ramp(-0.25 - y + 0.55 * np.clip(beside, 0, 1), 0.25) * ramp(beside, 0.15)
    whiskers *= ramp(y + 1.3, 0.2) * ramp(z + 0.8, 0.25)
    full = np.maximum(jaw, 0.9 * whiskers) * (y < 0.1)
    return {0: 0.55 * full, 2: full * ramp(0.42 - np.abs(x), 0.12)}.get(shape, full)
