"""Grown hair: strips of strands from the scalp, combed over an ellipsoid and pulled down by gravity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .head import Head, unit
from .mesh import Mesh, with_head

TEXTURE = "strands"
SIDE = 256  # of the strands' texture


@dataclass(frozen=True)
class Style:
    """How hair grows; lengths in units of Head, the rest are weights of the strand's direction at each step."""

    length: float
    count: int = 460  # strips
    steps: int = 11
    width: float = 0.085  # half, of a strip
    parting: float = 0.0  # x
    sideways: float = 1.0
    backwards: float = 0.4
    lift: float = 0.12
    thickness: float = 0.08  # of the hair over the skull, as a share of the skull's radius
    gravity: float = 0.75
    wildness: float = 0.03
    cling: float = 1.0
    curl: float = 0.0
    turns: float = 1.5
    fringe: float | None = None  # its length; None: the hair is combed aside


def sample_style(rng: np.random.Generator, name: str) -> Style:
    """A head of hair of one of the names in `wardrobe.GROWN_HAIR`."""
    u = rng.uniform
    parting, back, thick = float(rng.choice([0.0, u(-0.4, 0.4)])), u(0.1, 0.8), u(0.05, 0.11)
    styles = {
        "long": lambda: Style(
            u(1.8, 3.2), count=640, width=0.06, parting=parting, backwards=back, thickness=thick,
            wildness=u(0.01, 0.03),
        ),
        "wavy": lambda: Style(
            u(1.5, 2.8), count=640, width=0.06, steps=13, parting=parting, backwards=back, thickness=u(0.08, 0.16),
            curl=u(0.03, 0.07), turns=u(1.5, 3),
        ),
        "fringe": lambda: Style(
            u(1.2, 2.8), count=640, width=0.06, backwards=back, thickness=thick, fringe=u(0.4, 0.55)
        ),
        "curly": lambda: Style(
            u(0.7, 1.4), count=620, steps=8, width=0.055, backwards=back, lift=0.5, thickness=u(0.12, 0.3),
            gravity=0.45, wildness=0.12, cling=0.6, curl=0.07, turns=2.2,
        ),
        "afro": lambda: Style(
            u(0.3, 0.65), count=600, steps=4, width=0.1, sideways=0.2, backwards=0.1, lift=1.6, thickness=u(0.15, 0.5),
            gravity=0.02, wildness=0.45, cling=0.0, curl=0.05, turns=2.0,
        ),
        "swept": lambda: Style(
            u(0.5, 0.9), steps=6, width=0.09, sideways=0.35, backwards=1.4, lift=0.5, thickness=u(0.06, 0.18),
            gravity=0.1, wildness=0.08, cling=0.85,
        ),
        "mop": lambda: Style(
            u(0.4, 0.7), count=500, steps=6, backwards=back, lift=0.3, thickness=u(0.08, 0.2), gravity=0.3,
            wildness=0.12, cling=0.9, fringe=u(0.25, 0.42),
        ),
    }  # fmt: skip
    return styles[name]()


def strand_texture(seed: int = 5) -> np.ndarray:
    """[256, 256, 4] uint8, u across the strands and v from the tips (row 0 is the root)."""
    rng = np.random.default_rng(seed)
    strands = gaussian_filter1d(rng.normal(size=SIDE), 0.9, mode="wrap")
    strands = (strands - strands.min()) / np.ptp(strands)
    ends = gaussian_filter1d(rng.uniform(0.0, 0.55, SIDE), 0.8, mode="wrap")
    v = np.linspace(1, 0, SIDE)[:, None]
    light = 0.35 + 0.65 * strands + 0.36 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), (12, 0.8))
    body = np.clip(strands + 0.62 - 0.75 * np.clip(0.55 - v, 0, 1), 0, 1)
    alpha = np.clip((v - ends) / 0.12, 0, 1) * np.clip(body * 1.6 - 0.2, 0, 1)
    return np.clip(np.stack([light, light, light, alpha], -1) * 255, 0, 255).astype(np.uint8)


class Skull:
    """The ellipsoid that hair lies on, around the scalp's vertices [N, 3]."""

    def __init__(self, scalp: np.ndarray) -> None:
        low, high = scalp.min(0), scalp.max(0)
        self.centre = np.array([0, (low[1] + high[1]) / 2 + 0.12, (low[2] + high[2]) / 2])
        self.radii = np.array([np.abs(scalp[:, 0]).max(), high[1] - self.centre[1], (high[2] - low[2]) / 2]) * 1.02

    def outwards(self, points: np.ndarray) -> np.ndarray:
        """Unit normals of the ellipsoid through each point."""
        return unit((points - self.centre) / self.radii**2)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """1 on the ellipsoid, more outside."""
        return np.linalg.norm((points - self.centre) / self.radii, axis=1)


def grow(rng: np.random.Generator, head: Head, scalp: np.ndarray, style: Style) -> Mesh:
    """A mesh of strips; `scalp` [V] 0..1 says where on the skin hair grows."""
    skin = head.positions[head.bundle.skin.source]
    skull = Skull(skin[scalp > 0.5])
    roots = _roots(rng, skin, scalp, head.bundle.skin.triangles, style.count)
    paths = _comb(rng, skull, roots, style)
    if style.curl:
        paths = paths + _curls(rng, style, len(roots))
        paths = _keep_clear(paths.reshape(-1, 3), style).reshape(paths.shape)
    return _strips(rng, skull, paths, style)


def _roots(rng: np.random.Generator, skin: np.ndarray, scalp: np.ndarray, triangles: np.ndarray, count: int):
    """Points [count, 3] spread evenly over the scalp."""
    corners = skin[triangles[scalp[triangles].mean(1) > 0.3]]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) + 1e-9
    chosen = rng.choice(len(corners), count, p=area / area.sum())
    return np.einsum("nk,nkd->nd", rng.dirichlet([1, 1, 1], count), corners[chosen])


def _comb(rng: np.random.Generator, skull: Skull, roots: np.ndarray, style: Style) -> np.ndarray:
    """Where the strands go: [N, steps + 1, 3]."""
    count = len(roots)
    out = skull.outwards(roots)
    front = np.clip((roots[:, 2] - skull.centre[2]) / skull.radii[2], -1, 1)
    beside = roots[:, 0] - style.parting
    side = np.sign(beside + rng.normal(0, 0.02, count))
    if style.fringe is None:
        flow = np.stack([side * style.sideways, -np.abs(beside) * 0.5 - 0.15, np.full(count, -style.backwards)], 1)
    else:
        flow = np.stack([side * 0.35, np.full(count, -0.4), np.where(front > -0.1, 0.75, -0.5)], 1)
    flow = unit(flow - (flow * out).sum(1, keepdims=True) * out)
    length = style.length * rng.uniform(0.75, 1.15, count)
    if style.fringe is not None:
        length = np.where(front > 0.25, np.minimum(length, style.fringe * rng.uniform(0.85, 1.1, count)), length)
    layer = 1 + style.thickness * rng.uniform(0.15, 1, count)
    heading, point = unit(out * style.lift + flow), roots - out * 0.02
    path = [point]
    for _ in range(style.steps):
        falls = style.gravity * (0.35 + (point[:, 1] < skull.centre[1] + 0.1))
        heading = heading + np.array([0, -1, 0]) * falls[:, None] + rng.normal(0, style.wildness, (count, 3))
        out, near = skull.outwards(point), skull.distance(point) < layer + 0.02
        along = (heading * out).sum(1, keepdims=True) * out * style.cling
        heading = unit(heading - np.where(near[:, None], along, 0))
        point = point + heading * (length / style.steps)[:, None]
        point = _keep_clear(_keep_out(point, skull, layer), style)
        path.append(point)
    return np.stack(path, 1)


def _keep_out(point: np.ndarray, skull: Skull, layer: np.ndarray) -> np.ndarray:
    """Points pushed out of the skull to their layer of hair."""
    inward = (point - skull.centre) / skull.radii
    distance = np.linalg.norm(inward, axis=1)
    push = np.maximum(layer - distance, 0)[:, None] * inward / np.maximum(distance, 0.2)[:, None] * skull.radii
    return point + push


def _keep_clear(point: np.ndarray, style: Style) -> np.ndarray:
    """Points moved away from the face, and on to the shoulders."""
    x, y, z = point.T
    surface = 0.18 - 0.7 * np.clip(np.abs(x) - 0.3, 0, 1)  # about where the skin is
    face = (z > surface) & (y < (0.42 if style.fringe is None else 0.3)) & (np.abs(x) < 0.7)
    x = np.where(face, np.sign(x + 1e-6) * 0.72, x)
    z = np.where(face, np.minimum(z, 0.25), z)
    z = np.where((y < -1.35) & (z > -0.9), np.maximum(z, -0.35), z)
    return np.stack([x, y, z], 1)


def _curls(rng: np.random.Generator, style: Style, count: int) -> np.ndarray:
    """Spirals that widen towards the tips: [N, steps + 1, 3]."""
    along = np.linspace(0, 1, style.steps + 1)
    angle = along * style.turns * 2 * np.pi + rng.uniform(0, 2 * np.pi, count)[:, None]
    spiral = np.stack([np.cos(angle), 0.3 * np.sin(2 * angle), np.sin(angle)], -1)
    return style.curl * along[None, :, None] * spiral


def _strips(rng: np.random.Generator, skull: Skull, paths: np.ndarray, style: Style) -> Mesh:
    """Two rows of vertices along each path."""
    count, points = paths.shape[:2]
    along = unit(np.gradient(paths, axis=1))
    out = (paths - skull.centre + [0, 0.15, 0]) / skull.radii**2 * [1, 0.6, 1]
    out = unit(out)
    across = unit(np.cross(along, out))
    twist = rng.normal(0, 0.35, (count, 1, 1))
    across = across * np.cos(twist) + out * np.sin(twist)
    width = style.width * rng.uniform(0.6, 1.3, (count, 1, 1)) * np.linspace(1, 0.7, points)[None, :, None]
    positions = np.stack([paths - across * width, paths + across * width], 2).reshape(-1, 3).astype(np.float32)
    normals = unit(np.stack([out - 0.6 * across, out + 0.6 * across], 2)).reshape(-1, 3)
    uv = np.empty((count, points, 2, 2))
    uv[..., 0] = rng.uniform(0, 0.7, count)[:, None, None] + np.array([0, 0.3])
    uv[..., 1] = np.linspace(1, 0, points)[None, :, None]
    first = (np.arange(count)[:, None] * points * 2 + np.arange(points - 1) * 2).ravel()
    triangles = np.concatenate([np.stack([first + a, first + b, first + c], 1) for a, b, c in ((0, 1, 2), (1, 3, 2))])
    corners = positions[triangles]
    # Nobody sees what lies behind the skull.
    hidden = ((corners[..., 2] < -1.0) & (np.abs(corners[..., 0]) < 0.55) & (corners[..., 1] < 0.75)).all(1)
    extra = np.ones((len(positions), 3), np.float32)
    extra[:, 1] = with_head(positions)
    return Mesh("strands", "hair", TEXTURE, triangles[~hidden], uv.reshape(-1, 2), positions, normals, extra)
