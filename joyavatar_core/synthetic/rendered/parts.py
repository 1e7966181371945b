"""The meshes of one person: what to draw, in which material, fitted to the head at rest."""

from __future__ import annotations

import numpy as np

from .fur import fur
from .glasses import frame_of_glasses
from .hats import hat, tucked
from .head import Head
from .mesh import Mesh, fitted, nearest_first, with_head
from .mouth import teeth, tongue
from .person import Person
from .strips import grow, sample_style
from .styling import mesh_hair

BROW_TINT, LASH_TINT = (0.8,) * 3, (0.15,) * 3
# Fur by name: thickness from and to, layers, strands, curl.
FUR = {
    "buzz": (0.012, 0.03, 3, 5.0, 0.0), "cropped": (0.04, 0.09, 6, 4.0, 0.1), "curls": (0.12, 0.25, 9, 3.0, 0.8),
    "afro": (0.28, 0.6, 14, 4.0, 1.0), "frizz": (0.15, 0.4, 11, 5.0, 0.6),
}  # fmt: skip


def person_meshes(person: Person, head: Head) -> list[Mesh]:
    """Everything but the hair's and the glasses' details follows the seed through `person`."""
    rng = np.random.default_rng(person.seed)
    meshes = [
        _cloth(rng, person, head),
        _skin(person, head),
        fitted(head, "eyes", "eye", f"eye.{person.iris}.jpg"),
        teeth(head),
        tongue(head),
        fitted(head, person.brows, "decal", f"{person.brows}.webp", BROW_TINT, follows=True),
        fitted(head, person.lashes, "decal", f"{person.lashes}.webp", LASH_TINT, follows=True),
    ]
    hair = head_of_hair(rng, head, person)
    if person.hat != "none":
        hair = map(tucked, hair)
        meshes.append(hat(rng, head, person.hat, person.dyes[1], _dyed(rng, person.dyes)))
    meshes += map(nearest_first, hair)
    if person.beard not in ("none", "stubble"):
        meshes.append(nearest_first(_beard(person, head)))
    if person.glasses:
        meshes.append(frame_of_glasses(rng, head))
    return meshes


def _cloth(rng: np.random.Generator, person: Person, head: Head) -> Mesh:
    name = f"cloth.{person.clothes}"
    mesh = fitted(head, name, "cloth", f"{name}.jpg", person.dyes[0])
    mesh.extra[:, 1] = 0
    mesh.uniforms = _dyed(rng, person.dyes) | {"own_colour": person.own_colour, "pattern": person.pattern}
    return mesh


def _dyed(rng: np.random.Generator, dyes: tuple[tuple[float, float, float], ...]) -> dict[str, object]:
    """What shaders/cloth.glsl is told of a piece of one colour or with melange."""
    return {
        "second_colour": dyes[1], "own_colour": 0.0, "pattern": int(rng.choice([0, 1, 5])),
        "pattern_size": float(rng.uniform(0.08, 0.4)),
    }  # fmt: skip


def _skin(person: Person, head: Head) -> Mesh:
    mesh = fitted(head, "skin", "skin", f"skin.{person.skins[0]}.jpg", follows=True)
    mesh.normals = head.normals(head.positions)[head.bundle.skin.source]
    mesh.extra[:, 1] = with_head(mesh.positions)
    mesh.extra[:, 2] = beard_region(mesh.positions, person.beard)
    y, z = mesh.positions[mesh.triangles][..., 1], mesh.positions[mesh.triangles][..., 2]
    unseen = ((y < -2.05) & (z < -1.0)).all(1) | (y < -2.9).all(1)  # below the clothes
    mesh.triangles = mesh.triangles[~unseen]
    return mesh


def head_of_hair(rng: np.random.Generator, head: Head, person: Person) -> list[Mesh]:
    """The meshes of a person's hair."""
    kind, _, name = person.hair.partition(":")
    scalp = head.bundle.scalp()
    if kind == "mesh":
        return [mesh_hair(rng, head, name, person.hair_mirrored)]
    if kind == "grown":
        return [fur(head, scalp, 0.05, 3, 3.0), grow(rng, head, scalp, sample_style(rng, name))]
    if kind == "fur":
        low, high, layers, strands, curl = FUR[name]
        return [fur(head, scalp, rng.uniform(low, high), layers, strands * rng.uniform(0.85, 1.2), curl, rng)]
    return []


def _beard(person: Person, head: Head) -> Mesh:
    skin = head.bundle.skin
    region = beard_region(head.positions[skin.source], person.beard) * (1 - head.bundle.mask(0))
    thickness = {"full": 0.08, "goatee": 0.05, "moustache": 0.045}.get(person.beard, 0.025)
    return fur(head, region * person.beard_density, thickness, 4, 7.0, 0.0, follows_face=True)


def ramp(value: np.ndarray, width: float) -> np.ndarray:
    """0 below 0, 1 above `width`, linear between."""
    return np.clip(value / width, 0, 1)


def beard_region(positions: np.ndarray, kind: str) -> np.ndarray:
    """[V] 0..1: where a beard of one of the kinds in `person.BEARDS` grows."""
    x, y, z = positions.T
    jaw = ramp(-0.74 - y, 0.12) * ramp(y + 1.5, 0.25) * ramp(z + 0.95, 0.4)
    beside = np.abs(x) - 0.4
    whiskers = ramp(-0.2 - y + 0.55 * np.clip(beside, 0, 1), 0.25) * ramp(beside, 0.2)
    whiskers *= ramp(y + 1.3, 0.2) * ramp(z + 0.8, 0.25)
    moustache = ramp(-0.49 - y, 0.05) * ramp(y + 0.68, 0.05) * ramp(0.3 - np.abs(x), 0.1) * (z > 0)
    corners = ramp(0.1 - np.abs(np.abs(x) - 0.3), 0.06) * ramp(-0.55 - y, 0.1) * ramp(y + 0.95, 0.1) * (z > 0)
    full = np.maximum.reduce([jaw, 0.9 * whiskers, moustache, corners]) * (y < 0.1)
    chin = np.maximum(jaw * ramp(0.36 - np.abs(x), 0.12), np.maximum(moustache, corners))
    return {"goatee": chin, "moustache": moustache, "none": 0 * full}.get(kind, full)
