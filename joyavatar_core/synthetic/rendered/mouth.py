"""Teeth and tongue, moved to where they are visible in speech.

MakeHuman's upper teeth hardly show below the lip, and its tongue fills the mouth.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .head import Head
from .mesh import Mesh, fitted

TEETH_TINT, TONGUE_TINT = (0.80, 0.77, 0.71), (0.55, 0.33, 0.32)
FRONT_TEETH = 0.42  # how deep the row of teeth is that is ever seen
UPPER, LOWER, TONGUE = -0.028, -0.03, (0.0, -0.035, -0.03)  # how far they are moved
JAW = 0.35  # share of the jaw's motion above which a row of teeth is the lower one


def teeth(head: Head) -> Mesh:
    """Both rows, follow the face."""
    mesh = fitted(head, "teeth", "teeth", "teeth.jpg", TEETH_TINT, follows=True)
    mesh.offset = np.zeros_like(mesh.positions)
    mesh.offset[:, 1] = np.where(_lower(head, mesh), LOWER, UPPER)
    depth = mesh.positions[:, 2].max() - mesh.positions[:, 2]
    mesh.triangles = mesh.triangles[(depth[mesh.triangles] < FRONT_TEETH).any(1)]
    mesh.extra[:, 2] = 0.36 - depth
    return mesh


def tongue(head: Head) -> Mesh:
    """Follows the face."""
    mesh = fitted(head, "tongue", "tongue", "tongue.jpg", TONGUE_TINT, follows=True)
    mesh.offset = np.broadcast_to(np.array(TONGUE, np.float32), mesh.positions.shape)
    mesh.extra[:, 2] = mesh.positions[:, 2] - mesh.positions[:, 2].max() + 0.36
    return mesh


def _lower(head: Head, mesh: Mesh) -> np.ndarray:
    """[V]: whether a vertex belongs to what moves with the jaw; each tooth and gum moves as one."""
    units = np.zeros(len(head.bundle.units), np.float32)
    units[head.bundle.units["jawOpen"]] = 1
    part = head.bundle.parts["teeth"]
    moved = np.linalg.norm(part.fit(head.pose(units)) - mesh.positions, axis=1)
    place = part.source
    edges = place[mesh.triangles[:, [0, 1, 1, 2]]].reshape(-1, 2)
    count = place.max() + 1
    piece = connected_components(coo_matrix((np.ones(len(edges)), edges.T), (count, count)), directed=False)[1][place]
    mean = np.bincount(piece, moved) / np.maximum(np.bincount(piece), 1)
    return mean[piece] > JAW * moved.max()
