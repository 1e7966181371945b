"""Teeth and tongue, moved to where they are visible in speech.

MakeHuman's upper teeth hardly show below the lip, and its tongue fills the mouth. Its face units bend the rows of teeth
with the lips. Here the upper row stays with the skull, and the lower row goes with the jaw as one piece.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from .head import Head
from .landmarks import LOWER_LIP, UPPER_LIP
from .mesh import JawMotion, Mesh, fitted

TEETH_TINT, TONGUE_TINT = (0.80, 0.77, 0.71), (0.55, 0.33, 0.32)
FRONT_TEETH = 0.42  # how deep the row of teeth is that is ever seen
INCISORS = 0.1  # how deep the incisors are
# How far the edges of the incisors lie below the seam of closed lips: upper ones show in speech, lower ones hardly.
UPPER_BELOW, LOWER_BELOW = 0.04, 0.015
TONGUE = (0.0, -0.035, -0.03)  # how far it is moved
DOWN = 0.04  # what an open jaw moves down by more than this is the lower row


def teeth(head: Head) -> Mesh:
    """Both rows."""
    mesh = fitted(head, "teeth", "teeth", "teeth.jpg", TEETH_TINT, follows=True)
    opened = head.pose(_open_jaw(head))
    moved = head.bundle.parts["teeth"].fit(opened)
    lower = mesh.positions[:, 1] - moved[:, 1] > DOWN
    seam, lip = (head.bundle.vertex(row[k]) for row, k in ((UPPER_LIP, -1), (LOWER_LIP, 0)))
    front = mesh.positions[:, 2] > mesh.positions[:, 2].max() - INCISORS
    edges = mesh.positions[front & ~lower, 1].min(), mesh.positions[front & lower, 1].max()
    for row, edge, below in zip((~lower, lower), edges, (UPPER_BELOW, LOWER_BELOW), strict=True):
        mesh.positions[row, 1] += head.positions[seam, 1] - below - edge
    incisors = moved[front & lower]
    pivot = mesh.positions[front & lower].mean(0)
    turn, _ = Rotation.align_vectors(incisors - incisors.mean(0), mesh.positions[front & lower] - pivot)
    mesh.jaw = JawMotion(lower, pivot, turn.as_rotvec(), opened[lip] - head.positions[lip])
    depth = mesh.positions[:, 2].max() - mesh.positions[:, 2]
    seen, row = (depth[mesh.triangles] < FRONT_TEETH).any(1), lower[mesh.triangles]
    mesh.triangles = mesh.triangles[seen & (row.all(1) | ~row.any(1))]
    mesh.extra[:, 2] = 0.36 - depth
    return mesh


def tongue(head: Head) -> Mesh:
    """Follows the face."""
    mesh = fitted(head, "tongue", "tongue", "tongue.jpg", TONGUE_TINT, follows=True)
    mesh.offset = np.broadcast_to(np.array(TONGUE, np.float32), mesh.positions.shape)
    mesh.extra[:, 2] = mesh.positions[:, 2] - mesh.positions[:, 2].max() + 0.36
    return mesh


def _open_jaw(head: Head) -> np.ndarray:
    """Weights [52] of the face units of an open jaw."""
    units = np.zeros(len(head.bundle.units), np.float32)
    units[head.bundle.units["jawOpen"]] = 1
    return units
