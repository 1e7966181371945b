"""The crop of a portrait: around the face as in training, the centre, or a given box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import AvatarError
from .face_locator import Face

# How training frames a face, in the shorter side of the picture: the size (see Face), and where its centre is. Rendered
# people have 0.76 and (0.51, 0.42) in the mean, drawn ones 0.75 and (0.5, 0.52); a little wider shows all of the hair.
SIZE, CENTRE = 0.72, (0.5, 0.46)
# What training has seen of each, and a little more: a centre crop within these bounds is left as it is.
USUAL_SIZE = (0.52, 0.93)
USUAL_X, USUAL_Y = (0.38, 0.62), (0.33, 0.6)
HEAD = 1.25  # size of a head as a multiple of its face's; a crop with close=False contains at least this much

Box = tuple[float, float, float, float]  # left, top, width, height in pixels


@dataclass(frozen=True)
class Crop:
    """Part of a picture of `picture` (width, height) pixels: box, in its pixels; found: how many faces were found, None
    where none was looked for; note: a sentence for the user where there is something to say."""

    box: Box
    picture: tuple[int, int]
    found: int | None = None
    note: str | None = None

    def summary(self) -> dict[str, object]:
        """Plain facts for a report."""
        box = [round(side, 1) for side in self.box]
        return {"crop": box, "picture": list(self.picture), "faces": self.found, "note": self.note}


def parse_crop(text: str) -> str | Box:
    """'face', 'centre' or 'X,Y,W,H' in pixels -> the same, or the box. Raises AvatarError for anything else."""
    given = text.replace(" ", "").lower()
    if given in ("face", "centre", "center"):
        return given.replace("center", "centre")
    if re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", given):
        x, y, width, height = (float(number) for number in given.split(","))
        if width and height:
            return x, y, width, height
    raise AvatarError(f"The crop is '{text}', expected face, centre, or X,Y,W,H in pixels such as 120,40,512,512.")


def cover(box: Box, shape: tuple[int, int]) -> Box:
    """The largest centred part of a box that has the proportions of `shape` (width, height)."""
    left, top, width, height = box
    scale = min(width / shape[0], height / shape[1])
    wide, high = shape[0] * scale, shape[1] * scale
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def clipped(box: Box, picture: tuple[int, int]) -> Box:
    """A box without what lies beyond the right and the lower edge of a picture (width, height)."""
    left, top, width, height = box
    return left, top, min(width, picture[0] - left), min(height, picture[1] - top)


def choose_crop(
    picture: tuple[int, int], shape: tuple[int, int], crop: str | Box, faces: Sequence[Face] = (), close: bool = True
) -> Crop:
    """The crop of a picture (width, height) for a video of `shape` (width, height).

    crop: 'face', 'centre' or a box. faces: those of the picture, the largest first. close: frame the face as in
    training; otherwise the crop is as large as the picture allows and only moves so that the face is in it.
    Raises AvatarError for a box that is not within the picture.
    """
    centre = cover((0, 0, *picture), shape)
    if not isinstance(crop, str):
        left, top, width, height = crop
        inside = left >= 0 and top >= 0 and left + width <= picture[0] and top + height <= picture[1]
        if not inside or width <= 0 or height <= 0:
            raise AvatarError(
                f"The crop {left:g},{top:g},{width:g},{height:g} is not within the portrait of "
                f"{picture[0]}x{picture[1]} pixels; give X,Y,W,H inside it."
            )
        return Crop(cover(crop, shape), picture)
    if crop == "centre":
        kept = centre[2] * centre[3] / (picture[0] * picture[1])
        note = f"the portrait's centre is used, {kept:.0%} of the picture" if kept < 0.7 else None
        return Crop(centre, picture, None, note)
    if not faces:
        note = (
            "no face was found in the portrait, its centre is used, and the mouth may hardly move; "
            "crop it yourself with X,Y,W,H if that is wrong"
        )
        return Crop(centre, picture, 0, note)
    note = f"{len(faces)} faces were found in the portrait, the largest is used" if len(faces) > 1 else None
    face = faces[0]
    box = _close(picture, shape, face, centre) if close else _moved(picture, face, centre)
    return Crop(box, picture, len(faces), note)


def _close(picture: tuple[int, int], shape: tuple[int, int], face: Face, centre: Box) -> Box:
    left, top, width, height = centre
    short = min(width, height)
    at = (face.x - left - width / 2) / short + 0.5, (face.y - top - height / 2) / short + 0.5
    usual = all(low <= value <= high for value, (low, high) in
                zip((face.size / short, *at), (USUAL_SIZE, USUAL_X, USUAL_Y), strict=True))  # fmt: skip
    if usual:
        return centre
    short = face.size / SIZE
    scale = min(short / min(shape), picture[0] / shape[0], picture[1] / shape[1])
    width, height, short = shape[0] * scale, shape[1] * scale, min(shape) * scale
    left = face.x - width / 2 - (CENTRE[0] - 0.5) * short
    top = face.y - height / 2 - (CENTRE[1] - 0.5) * short
    return _within(left, picture[0], width), _within(top, picture[1], height), width, height


def _moved(picture: tuple[int, int], face: Face, centre: Box) -> Box:
    left, top, width, height = centre
    reach = HEAD * face.size / 2
    return (
        _within(_holding(left, width, face.x - reach, face.x + reach), picture[0], width),
        _within(_holding(top, height, face.y - reach, face.y + reach), picture[1], height),
        width, height,
    )  # fmt: skip


def _holding(start: float, length: float, low: float, high: float) -> float:
    """The start nearest to `start` of a stretch that holds low ... high; centred on them where it is shorter."""
    if high - low >= length:
        return (low + high - length) / 2
    return min(max(start, high - length), low)


def _within(start: float, whole: float, length: float) -> float:
    return min(max(start, 0.0), max(whole - length, 0.0))
