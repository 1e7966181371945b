"""Short dense hair as shells: copies of the skin at growing heights, of which the shader leaves strands (Lengyel 2000).

Used for cropped and frizzy hair, for beards, and as the cap below strips of longer hair.
"""

from __future__ import annotations

import numpy as np

from .head import Head
from .mesh import Mesh, with_head

LEAST = 0.04  # coverage below which no fur is drawn


def fur(
    head: Head, coverage: np.ndarray, thickness: float, layers: int, strands: float, curl: float = 0.0,
    rng: np.random.Generator | None = None, follows_face: bool = False,
) -> Mesh:  # fmt: skip
    """A mesh of `layers` shells up to `thickness` over the skin, where `coverage` [V] is not 0.

    `strands` is how often the noise repeats over the skin, `curl` 0..1 how much of it is coarse; `rng` makes the
    outline uneven.
    """
    skin = head.bundle.skin
    faces = skin.triangles[(coverage[skin.triangles] > LEAST).any(1)]
    used, triangles = np.unique(faces, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    heights = thickness * (np.arange(layers) + 0.5) / layers
    normals = head.normals(head.positions)[skin.source[used]]
    at = head.positions[skin.source[used]]
    # Shells end at the skin where the coverage ends.
    lengths = np.sqrt(np.clip(coverage[used], 0, 1))
    if rng is not None:
        lengths = lengths * _uneven(rng, at)
    positions = np.concatenate([at + normals * (h * lengths)[:, None] for h in heights]).astype(np.float32)
    extra = np.ones((len(positions), 3), np.float32)
    extra[:, 1] = np.tile(with_head(at), layers)
    extra[:, 2] = np.concatenate([k + 0.98 * np.clip(coverage[used], 0, 1) for k in range(layers)])
    over = np.tile(used, layers), np.repeat(heights, len(used)) * np.tile(lengths, layers)
    softness = 0.5 if follows_face else 0.15
    return Mesh(
        "fur", "fur", "mask.png", np.concatenate([triangles + k * len(used) for k in range(layers)]),
        np.tile(skin.uv[used], (layers, 1)), positions, np.tile(normals, (layers, 1)), extra,
        follows_face=follows_face, shadow=thickness > 0.1, on_skin=over,
        uniforms={"layers": float(layers), "strands": strands, "curl": curl, "softness": softness},
    )  # fmt: skip


def _uneven(rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
    """[V] lengths around 1 that change smoothly over the points [V, 3]: a sum of plane waves."""
    waves = rng.normal(0, 5, (12, 3))
    return 1 + 0.22 * np.cos(at @ waves.T + rng.uniform(0, 2 * np.pi, 12)).mean(1) * np.sqrt(6)
