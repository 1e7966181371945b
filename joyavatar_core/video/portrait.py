"""Pictures in, frames out: any portrait file or array to a tensor in [-1, 1], and decoded video back to bytes."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..config import AvatarConfig
from ..errors import AvatarError
from ..geometry import PIXELS_PER_TOKEN

# Pillow refuses 179 Mpx as a likely decompression bomb. 20,000 x 20,000 is a real scan: at this limit a picture decodes
# to at most 2 GiB, once; JPEG is decoded at a reduced size and stays far below.
MAX_PIXELS = 2**29
SIDES = (PIXELS_PER_TOKEN, 4096)
# What pages and viewers show a cut-out on, so a portrait looks as its owner saw it.
WHITE = (255, 255, 255)
ORIENTATION = 0x0112  # EXIF tag
STRIP_PIXELS = 2**21  # converted at a time while a huge picture is reduced
SPARE = 3  # reduce with a box filter to this many times the target; Lanczos does the rest (Pillow's reducing_gap)
_limit_lock = threading.Lock()


def load_portrait(source: Any, width: int, height: int) -> torch.Tensor:
    """A portrait as float32 [3, height, width] in [-1, 1]: cover-resized (Lanczos) and centre-cropped.

    source: see `read_picture`. width, height: pixels, multiples of 16 from 16 to 4096.
    Raises AvatarError for sizes out of bounds and for what is not a readable picture.
    """
    check_size(width, height)
    rgb, _ = read_picture(source, width, height)
    # One resize does both: the box is the largest centred part of the picture with the target's shape.
    scale = min(rgb.width / width, rgb.height / height)
    left, top = max(0.0, (rgb.width - width * scale) / 2), max(0.0, (rgb.height - height * scale) / 2)
    box = (left, top, rgb.width - left, rgb.height - top)
    rgb = rgb.resize((width, height), Image.Resampling.LANCZOS, box=box)
    pixels = torch.from_numpy(np.array(rgb))  # [H, W, 3]
    return pixels.permute(2, 0, 1).float().div(127.5).sub(1.0).contiguous()


def read_picture(
    source: Any, width: int, height: int, background: tuple[int, int, int] = WHITE
) -> tuple[Image.Image, tuple[int, int]]:
    """A picture upright and in RGB, reduced to not much more than a cover of width x height needs, and its full size.

    Args:
        source: a path, an open binary file, a PIL image, or an array or tensor [H, W], [H, W, C] or [B, H, W, C] (the
            first is taken) with C of 1, 3 or 4, uint8 or float in 0..1. EXIF rotation is applied, an animation gives
            its first frame.
        background: RGB, 0 ... 255, that alpha is laid on.
    Raises AvatarError for what is not a readable picture.
    """
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = f"The portrait {getattr(source, 'name', source)}"
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            raise AvatarError(
                f"The portrait {os.fspath(source)} cannot be read as a picture: it is a folder; give a picture's name."
            )
        with _readable(name), _open(source, name) as image:
            full = image.size  # before a JPEG is decoded at a reduced size
            _draft(image, width, height)
            rgb = _reduced_rgb(image, width, height, background)
            sideways = _orientation(image) >= 5
    else:
        image = source if isinstance(source, Image.Image) else _from_array(source)
        full = image.size
        with _readable("The portrait"):
            rgb = _reduced_rgb(image, width, height, background)
            sideways = _orientation(image) >= 5
    return rgb, full[::-1] if sideways else full


def check_size(width: int, height: int) -> None:
    """Raises AvatarError unless both sides, in pixels, are multiples of 16 within bounds."""
    for side in (width, height):
        if not isinstance(side, Integral) or side % PIXELS_PER_TOKEN or not SIDES[0] <= side <= SIDES[1]:
            raise AvatarError(
                f"The picture size is {width}x{height}, expected multiples of {PIXELS_PER_TOKEN} from "
                f"{SIDES[0]} to {SIDES[1]}.",
                "size",
            )


def check_trained_size(width: int, height: int, config: AvatarConfig) -> str | None:
    """What there is to say of a picture (pixels) with more of them than the checkpoint was trained on.

    Raises AvatarError where the checkpoint is not of Wan2.1's dimensions: only those come from a model that has seen
    other sizes.
    """
    if width * height <= config.width * config.height:
        return None
    trained = f"{config.width}x{config.height}"
    if config.is_wan:
        return (
            f"The picture is {width}x{height}, more pixels than the {trained} this checkpoint was trained on: faces "
            f"may come out less steady. Use {trained} where they do."
        )
    raise AvatarError(
        f"The picture is {width}x{height}, more pixels than the {trained} this checkpoint was trained on, and would "
        "fall apart; use the checkpoint's size, and refine or upscale the finished frames.",
        "size",
    )


def to_uint8(video: torch.Tensor) -> torch.Tensor:
    """Decoded video [3, T, H, W] in [-1, 1] to uint8 frames [T, H, W, 3].

    -1 is 0, 1 is 255, in between the nearest integer (halves to even), beyond it clipped: undoes `load_portrait`.
    """
    video = video.detach()
    frames = torch.empty(*video.shape[1:], len(video), dtype=torch.uint8, device=video.device)
    at_once = max(1, video.shape[1]) if video.is_cuda else 1  # a frame fits in a CPU's cache
    for made, part in zip(frames.split(at_once), video.split(at_once, dim=1), strict=True):
        levels = part.to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        made.copy_(levels.permute(1, 2, 3, 0))  # bytes are moved: a quarter of what floats take
    return frames


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except AvatarError:
        raise
    except FileNotFoundError:
        raise AvatarError(f"{name} does not exist, expected a picture file; check the path.") from None
    except (
        OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError, struct.error
    ) as problem:  # fmt: skip
        # Pillow's decoders raise any of these for damaged files.
        raise AvatarError(f"{name} cannot be read as a picture ({problem}); save it again as PNG or JPEG.") from None


def _open(source: str | os.PathLike[str] | IO[bytes], name: str) -> Image.Image:
    with _limit_lock:  # Pillow's limit is a module global
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    if image.width * image.height > MAX_PIXELS:
        raise AvatarError(
            f"{name} has {image.width}x{image.height} pixels, expected at most {MAX_PIXELS}; scale it down."
        )
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) ... 8; what is none counts as upright."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's readers raise many kinds for a damaged tag, and the picture is whole all the same
        return 1
    return value if value in range(1, 9) else 1


def _shrinking(image: Image.Image, width: int, height: int) -> float:
    """How many pixels of the picture, as it lies in the file, fall on one of the target."""
    if _orientation(image) >= 5:  # it lies on its side
        width, height = height, width
    return min(image.width / width, image.height / height)


def _draft(image: Image.Image, width: int, height: int) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8, still at least SPARE times the target; others take no notice."""
    shrinking = _shrinking(image, width, height) / SPARE
    image.draft(None, (int(image.width / shrinking), int(image.height / shrinking)))


def _reduced_rgb(image: Image.Image, width: int, height: int, background: tuple[int, int, int]) -> Image.Image:
    """The picture upright, 8-bit RGB, not much larger than the target; never a second copy at full size."""
    image.load()
    factor = max(1, int(_shrinking(image, width, height) / SPARE))
    white = _white(image)
    rows = max(1, STRIP_PIXELS // image.width // factor) * factor
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        strip = _to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))), white, background)
        rgb.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    rgb.getexif()[ORIENTATION] = _orientation(image)
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def _white(image: Image.Image) -> float | None:
    """The value that means white in a greyscale picture deeper than 8 bits; None for all other pictures."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return None
    brightest = image.getextrema()[1]  # 32-bit modes do not say: floats in 0..1, 8 and 16-bit data all come as these
    if image.mode == "F" and brightest <= 1:
        return 1.0
    return 255.0 if brightest <= 255 else max(65535.0, brightest)


def _to_rgb(image: Image.Image, white: float | None, background: tuple[int, int, int]) -> Image.Image:
    if white is not None:
        grey = np.nan_to_num(np.asarray(image, np.float64)) * (255.0 / white)
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_array(array: Any) -> Image.Image:
    array = (
        array.detach().cpu().float() if getattr(array, "is_floating_point", bool)() else array
    )  # bfloat16 has no numpy
    array = np.asarray(array.cpu() if isinstance(array, torch.Tensor) else array)
    found = f"The portrait is an array {array.dtype} {list(array.shape)}"
    expected = "expected [H, W, C] or [B, H, W, C] with 1, 3 or 4 channels, uint8 or float in 0..1; convert it first."
    if array.ndim == 4 and len(array):
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise AvatarError(f"{found}, {expected}")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise AvatarError(f"{found} with values from {array.min():.4g} to {array.max():.4g}, {expected}")
        array = (array * 255.0).round().clip(0, 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise AvatarError(f"{found}, {expected}")
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array))
