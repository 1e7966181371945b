"""The rendered people's data, loaded once: a head mesh, its morphs and face units, and the parts that fit it.

Everything in `data/` is CC0; data/SOURCES.md says where each file is from. Lengths are decimetres, as in MakeHuman.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix

from ...errors import AvatarError

DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class Part:
    """A mesh that follows the base mesh: skin, eyes, teeth, hair, clothes."""

    triangles: np.ndarray  # [F, 3] into the part's vertices
    uv: np.ndarray  # [V, 2], v counts from the picture's lower edge
    source: np.ndarray  # [V]: of base vertices, or of fitted vertices where `reference` is given
    reference: np.ndarray | None = None  # [W, 3]: the base vertices that each fitted vertex hangs on
    weights: np.ndarray | None = None  # [W, 3]
    offset: np.ndarray | None = None  # [W, 3], in units of `scale`
    scale: tuple[tuple[int, int, float] | None, ...] = (None, None, None)  # x, y, z: two base vertices, their distance

    def fit(self, positions: np.ndarray) -> np.ndarray:
        """The part's vertices [V, 3] for base vertices [N, 3]."""
        if self.reference is None:
            return positions[self.source]
        scale = [
            abs(positions[s[0], axis] - positions[s[1], axis]) / s[2] if s else 0.0 for axis, s in enumerate(self.scale)
        ]
        hung = np.einsum("nij,ni->nj", positions[self.reference], self.weights)
        return (hung + self.offset * np.array(scale, np.float32))[self.source]


class Bundle:
    """The packed arrays under their names."""

    def __init__(self, folder: Path = DATA) -> None:
        if not (folder / "heads.npz").exists():
            raise AvatarError(
                f"'{folder}' does not hold the rendered people's data; it comes with a checkout of the repository only."
            )
        with np.load(folder / "heads.npz") as packed:
            arrays = {name: packed[name] for name in packed.files}
        meta = json.loads((folder / "heads.json").read_text())
        self.textures = folder / "tex"
        self._numbers = arrays["vertex"]  # [N]: MakeHuman's, rising
        self.base = arrays["base"].astype(np.float32)  # [N, 3]
        self.morphs = dict(zip(meta["targets"], arrays["targets"], strict=True))  # name -> [N, 3] float16
        self.units = {name: k for k, name in enumerate(meta["units"])}
        self.unit_moves = arrays["units"].astype(np.float32)  # [52, N, 3]
        self.eyes = arrays["l_eye"], arrays["r_eye"]  # vertices of the balls, at +x and at -x
        self.parts = {name: _part(arrays, name, about.get("scale", {})) for name, about in meta["parts"].items()}
        skin = self.parts["skin"]
        self.skin_triangles = skin.source[skin.triangles]
        self._mask = _rgba(self.textures / "mask.png")

    @property
    def skin(self) -> Part:
        return self.parts["skin"]

    def mask(self, channel: int) -> np.ndarray:
        """[V] 0..1 a skin vertex: 0 lips, 1 scalp, 2 inside of the mouth, 3 face."""
        side = len(self._mask)
        x, y = (np.clip((self.skin.uv[:, k] * side).astype(int), 0, side - 1) for k in (0, 1))
        return self._mask[side - 1 - y, x, channel] / 255

    def scalp(self) -> np.ndarray:
        """[V] 0..1 a skin vertex: where the hair of the head grows; the mask alone also has lids and brows."""
        middle = (self.base[self.eyes[0]].mean(0) + self.base[self.eyes[1]].mean(0)) / 2
        x, y, z = (self.base[self.skin.source] - middle).T
        face = (np.abs(x) < 0.6) & (y < 0.38) & (z > -0.25)
        return np.where(face, 0.0, self.mask(1))

    def spread(self) -> csr_matrix:
        """[N, F]: adds what is known of each skin triangle to its vertices."""
        count = len(self.skin_triangles)
        rows, columns = self.skin_triangles.T.ravel(), np.tile(np.arange(count), 3)
        return csr_matrix((np.ones(3 * count, np.float32), (rows, columns)), (len(self.base), count))

    def vertex(self, number: int) -> int:
        """The base vertex that has a number in MakeHuman's mesh."""
        return int(np.searchsorted(self._numbers, number))

    def mirrored(self, vertex: int) -> int:
        """The base vertex on the other side."""
        return int(np.argmin(np.linalg.norm(self.base - self.base[vertex] * [-1, 1, 1], axis=1)))


def _rgba(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))


def _part(arrays: dict[str, np.ndarray], name: str, scale: dict[str, list]) -> Part:
    fitted = (arrays.get(f"{name}.{key}") for key in ("ref", "w", "off"))
    measures = tuple((int(s[0]), int(s[1]), float(s[2])) if (s := scale.get(axis)) else None for axis in "xyz")
    return Part(arrays[f"{name}.tri"], arrays[f"{name}.uv"], arrays[f"{name}.src"], *fitted, measures)


@lru_cache(maxsize=1)
def load_bundle() -> Bundle:
    """The data of this checkout; read once a process."""
    return Bundle()
