"""Sizes of refined pictures, and of the portrait that they take their detail from."""

from __future__ import annotations

from ..errors import AvatarError
from ..framing.portrait_framing import FramedPortrait
from ..geometry import Size

LARGEST_SCALE = 8  # times the stream's side that a refined picture, and the portrait that a stream carries, may have
# That the carried portrait has even if it has fewer pixels itself. A huge picture is reduced for this scale while it is
# read; `read_picture` leaves several times as many pixels, so larger scales have theirs, too.
USUAL_SCALE = 4
LARGEST_SIDE = 2048  # pixels; a picture with a longer side is at most USUAL_SCALE times as large as the stream
USUAL_WIDTH = 512  # pixels of refined frames, where nothing else is wanted
TIMES = {f"{times}x": times for times in range(1, LARGEST_SCALE + 1)}  # settings of the refined size


def refined_size(setting: str | int, frame: Size) -> Size | None:
    """(width, height) in pixels of refined frames; None where they are not refined.

    setting: "off", "on" (USUAL_WIDTH, within the bounds), "1x" ... "8x" (the frame's side so many times), or the width
    wanted, from the frame's to `largest_scale` times that.
    frame: (width, height) of the stream. Raises AvatarError for other settings.
    """
    width, height = frame
    if setting == "off":
        return None
    wanted = TIMES[setting] * width if setting in TIMES else setting
    if setting == "on":
        wanted = min(USUAL_SCALE * width, max(width, USUAL_WIDTH))
    if isinstance(wanted, str):
        if not (wanted.isascii() and wanted.isdigit()):
            raise AvatarError(
                f"The refined size is '{setting}', expected off, on, 1x to 8x or a width in pixels.", "refine"
            )
        wanted = int(wanted)
    most = largest_scale(frame) * width
    if wanted % 2 or not width <= wanted <= most:
        raise AvatarError(
            f"The refined width is {wanted}, expected an even number from {width} (the stream's) to {most}.",
            "refine",
        )
    return wanted, 2 * round(wanted * height / width / 2)


def largest_scale(frame: Size) -> int:
    """How many times as large as a stream's frames (width, height) its refined frames may be."""
    return max(USUAL_SCALE, min(LARGEST_SCALE, LARGEST_SIDE // max(frame)))


def carried_size(framed: FramedPortrait) -> Size:
    """(width, height) of the portrait that a stream carries for its refiner: as large as the crop is itself, in whole
    multiples of the stream's size from USUAL_SCALE to `largest_scale`.
    """
    width, height = framed.pixel_size
    left, top, right, bottom = framed.box
    own = int(min((right - left) // width, (bottom - top) // height))
    times = max(USUAL_SCALE, min(own, largest_scale(framed.pixel_size)))
    return times * width, times * height
