"""The face of a portrait as an upright square of its own, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .face_locator import CENTRE_DEPTH, HEIGHT, Face

DEPTH = 0.5  # the square's centre below the eyes, in distances between eyes and chin
SIDE = 1.7  # its side in the same unit: from the brows to below the chin of an open mouth


@dataclass(frozen=True)
class FaceCrop:
    """A square in a picture's pixels: centre, side, and how far it is turned, in radians (clockwise)."""

    x: float
    y: float
    side: float
    roll: float

    @classmethod
    def of_points(cls, left_eye: np.ndarray, right_eye: np.ndarray, chin: np.ndarray, scale: float = 1.0) -> FaceCrop:
        """From the eyes (the picture's left first) and the chin, (x, y) each; scale: of the square's side."""
        eyes = (left_eye + right_eye) / 2
        x, y = eyes + DEPTH * (chin - eyes)
        roll = math.atan2(*(left_eye - chin + right_eye - chin) * (1, -1))
        return cls(float(x), float(y), scale * SIDE * float(np.linalg.norm(chin - eyes)), roll)

    @classmethod
    def of_face(cls, face: Face) -> FaceCrop:
        """From a face that the locator found."""
        unit = face.size / HEIGHT  # from the eyes to the chin
        down = (DEPTH - CENTRE_DEPTH) * unit
        x, y = face.x - math.sin(face.roll) * down, face.y + math.cos(face.roll) * down
        return cls(x, y, SIDE * unit, face.roll)

    def within(self, picture: Tensor, other: Tensor) -> FaceCrop:
        """The same square in another size of a picture, [..., H, W] each."""
        factor = other.shape[-1] / picture.shape[-1]
        return FaceCrop(factor * self.x, factor * self.y, factor * self.side, self.roll)

    def matrices(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Affine maps [2, 3] of places in -1 ... 1: from a picture into the square, and out of it."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        out = torch.tensor([
            [cos * self.side / width, -sin * self.side / width, 2 * self.x / width - 1],
            [sin * self.side / height, cos * self.side / height, 2 * self.y / height - 1],
        ])  # fmt: skip
        into = torch.linalg.inv(out[:, :2])
        return torch.cat([into, -into @ out[:, 2:]], dim=1), out

    def cut(self, pictures: Tensor, size: int) -> Tensor:
        """The square of pictures [N, C, H, W], [N, C, size, size]; what lies outside is the nearest pixel's."""
        fine = size * max(1, round(self.side / size))  # then shrunk, so that detail does not alias
        _, out = self.matrices(*pictures.shape[-2:])
        grid = F.affine_grid(out[None], [1, 3, fine, fine], align_corners=False).to(pictures.device)
        grid = grid.expand(len(pictures), -1, -1, -1)
        square = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return F.avg_pool2d(square, fine // size)

    def placed(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """Where in the square a grid over a picture lies, [rows, columns, 2]; inside it is -1 ... 1."""
        into, _ = self.matrices(height, width)
        return F.affine_grid(into[None], [1, 3, rows, columns], align_corners=False)[0]
