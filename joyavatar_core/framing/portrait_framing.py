"""From any portrait to the picture that an avatar starts with, and what was cropped on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor

from ..errors import AvatarError
from ..video.portrait import WHITE, check_size, read_picture
from .crop import Box, Crop, choose_crop
from .face_locator import face_locator

CLOSER = 2  # a crop may be this much smaller than the largest one before its pixels get fewer than usual


@dataclass(frozen=True)
class FramedPortrait:
    """pixels: [3, H, W] float32 in -1 ... 1; crop: what of the portrait they show."""

    pixels: torch.Tensor
    crop: Crop


def frame_portrait(
    source: Any,
    width: int,
    height: int,
    crop: str | Box = "face",
    background: str = "white",
    close: bool = True,
) -> FramedPortrait:
    """A portrait of any kind that `load_portrait` takes, cropped and resized to width x height pixels.

    crop: 'face', 'centre' or a box (left, top, width, height) in the upright picture's pixels. background: a colour's
    name or #RRGGBB, what is seen through transparent parts. close: see `choose_crop`.
    Raises AvatarError for sizes and crops out of bounds, and for what is not a readable picture.
    """
    check_size(width, height)
    closer = 1 if crop == "centre" else CLOSER
    picture, full = read_picture(source, closer * width, closer * height, parse_colour(background))
    scale = picture.width / full[0], picture.height / full[1]
    faces = face_locator().find(picture) if crop == "face" else ()
    wanted = crop if isinstance(crop, str) else tuple(side * scale[k % 2] for k, side in enumerate(crop))
    if not isinstance(crop, str):
        choose_crop(full, (width, height), crop)  # says in the picture's own pixels what is wrong with it
    chosen = choose_crop(picture.size, (width, height), wanted, faces, close)
    left, top, wide, high = chosen.box
    box = left, top, min(left + wide, picture.width), min(top + high, picture.height)
    pixels = torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.LANCZOS, box=box)))
    kept = tuple(side / scale[k % 2] for k, side in enumerate(chosen.box))
    pixels = pixels.permute(2, 0, 1).float().div(127.5).sub(1.0).contiguous()
    return FramedPortrait(pixels, Crop(kept, full, chosen.found, chosen.note))


def parse_colour(text: str) -> tuple[int, int, int]:
    """'white', '#ffcc00' -> 0 ... 255 each. Raises AvatarError for what is no colour."""
    try:
        return ImageColor.getrgb(text)[:3] if text.lower() != "white" else WHITE
    except ValueError:
        raise AvatarError(f"The background is '{text}', expected a colour such as white or #20a040.") from None


def cut_out(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images [B, H, W, 3] in 0 ... 1 with the first of masks [B, h, w], 1 where they are transparent, as alpha:
    [1, H, W, 4]. A mask of another size is resized."""
    mask = mask[:1] if mask.ndim == 3 else mask[None]
    if mask.shape[1:] != image.shape[1:3]:
        mask = torch.nn.functional.interpolate(mask[:, None].float(), image.shape[1:3], mode="bilinear")[:, 0]
    return torch.cat([image[:1, ..., :3], 1 - mask[..., None].to(image).clamp(0, 1)], -1)
