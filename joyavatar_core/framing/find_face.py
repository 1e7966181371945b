"""Finds the face of a portrait: the locator says where about it is, the aligner where exactly."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from .face_aligner import face_aligner
from .face_crop import FaceCrop
from .face_locator import face_locator


def find_face(picture: Tensor) -> FaceCrop | None:
    """The square of the largest face of a picture [3, H, W] in [-1, 1]; None where there is none."""
    pixels = picture.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    faces = face_locator().find(Image.fromarray(pixels))
    return face_aligner().align(picture, FaceCrop.of_face(faces[0])) if faces else None
