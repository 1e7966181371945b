"""Turns any portrait into the first picture of a stream, and records the crop."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor

from ..config import AvatarConfig
from ..errors import AvatarError
from ..geometry import Size
from ..video.portrait import WHITE, check_size, check_trained_size, read_picture
from .crop import Box, Crop, choose_crop, clipped
from .face_locator import face_locator

SMALLEST = 16, 16  # pixels of a video, width and height
CLOSER = 2  # a crop may be this much smaller than the largest one before its pixels get fewer than usual

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FramedPortrait:
    """A portrait and what of it is shown.

    picture: the whole portrait, RGB, perhaps reduced; box: left, top, right, bottom of the crop in its pixels;
    pixel_size: (width, height) of the video; crop: the same crop in the portrait's own pixels.
    """

    picture: Image.Image
    box: Box
    pixel_size: Size
    crop: Crop

    @property
    def pixels(self) -> torch.Tensor:
        """What the avatar starts with, [3, H, W] float32 in -1 ... 1."""
        return self.at(*self.pixel_size)

    def at(self, width: int, height: int) -> torch.Tensor:
        """The crop at any size in pixels, [3, height, width] float32 in -1 ... 1 (Lanczos)."""
        shown = self.picture.resize((width, height), Image.Resampling.LANCZOS, box=self.box)
        return torch.from_numpy(np.array(shown)).permute(2, 0, 1).float().div(127.5).sub(1.0).contiguous()


def frame_for(
    config: AvatarConfig, source: Any, pixel_size: Size, crop: str | Box = "face", background: str = "white",
    detail: int = 1,
) -> FramedPortrait:  # fmt: skip
    """`frame_portrait` as a checkpoint needs it; what there is to say is logged.

    Checkpoints of this project see faces framed as in their training; for public ones the face is only kept in.
    Raises AvatarError for sizes that the checkpoint was not trained for, besides `frame_portrait`'s reasons.
    """
    check_size(*pixel_size)
    larger = check_trained_size(*pixel_size, config)
    framed = frame_portrait(source, *pixel_size, crop, background, config.audio_features == "visemes", detail)
    for remark in filter(None, (larger, framed.crop.note)):
        log.warning("%s", remark)
    return framed


def frame_portrait(
    source: Any,
    width: int,
    height: int,
    crop: str | Box = "face",
    background: str = "white",
    close: bool = True,
    detail: int = 1,
) -> FramedPortrait:
    """A portrait of any kind that `read_picture` takes, cropped for a video of width x height pixels.

    crop: 'face', 'centre' or a box (left, top, width, height) in the upright picture's pixels. background: a colour's
    name or #RRGGBB, what is seen through transparent parts. close: see `choose_crop`. detail: times the video's size
    that the crop is wanted at.
    Raises AvatarError for sizes and crops out of bounds, and for what is not a readable picture.
    """
    check_size(width, height)
    closer = detail * (1 if crop == "centre" else CLOSER)
    colour = parse_colour(background)
    picture, full = read_picture(source, closer * width, closer * height, colour)
    if not isinstance(crop, str):
        choose_crop(full, (width, height), crop)  # says in the portrait's own pixels what is wrong with it
        if picture.size != full:  # it was reduced, perhaps by more than the box allows
            sides = (math.ceil(detail * side * full[k] / crop[2 + k]) for k, side in enumerate((width, height)))
            picture, full = read_picture(source, *sides, colour)
    scale = picture.width / full[0], picture.height / full[1]
    wanted = crop
    if not isinstance(crop, str):
        wanted = clipped(tuple(side * scale[k % 2] for k, side in enumerate(crop)), picture.size)  # after rounding
    faces = face_locator().find(picture) if crop == "face" else ()
    chosen = choose_crop(picture.size, (width, height), wanted, faces, close)
    left, top, wide, high = chosen.box
    box = max(left, 0.0), max(top, 0.0), min(left + wide, picture.width), min(top + high, picture.height)
    own = tuple(side / scale[k % 2] for k, side in enumerate(chosen.box))
    return FramedPortrait(picture, box, (width, height), Crop(own, full, chosen.found, chosen.note))


def check_portrait(source: Any, crop: str | Box = "face", background: str = "white") -> None:
    """Raises AvatarError for a picture, a crop or a colour that `frame_portrait` refuses whatever the video's size."""
    _, full = read_picture(source, *SMALLEST, parse_colour(background))
    if not isinstance(crop, str):
        choose_crop(full, SMALLEST, crop)


def parse_colour(text: str) -> tuple[int, int, int]:
    """'white', '#ffcc00' -> 0 ... 255 each. Raises AvatarError for what is no colour."""
    try:
        return ImageColor.getrgb(text)[:3] if text.lower() != "white" else WHITE
    except ValueError:
        raise AvatarError(f"The background is '{text}', expected a colour such as white or #20a040.") from None


def cut_out(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images [B, H, W, 3] in 0 ... 1 with the first of masks [B, h, w], 1 where they are transparent, as alpha:
    [1, H, W, 4]. A mask of another size is resized. Raises AvatarError where there is no mask."""
    mask = mask.reshape(-1, *mask.shape[-2:])[:1]
    if not len(mask):
        raise AvatarError("The mask is an empty batch, expected at least one mask; connect the mask of the portrait.")
    image = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image
    if mask.shape[1:] != image.shape[1:3]:
        mask = torch.nn.functional.interpolate(mask[:, None].float(), image.shape[1:3], mode="bilinear")[:, 0]
    return torch.cat([image[:1, ..., :3], 1 - mask[..., None].to(image).clamp(0, 1)], -1)
