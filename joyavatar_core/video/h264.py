"""RGB pictures into an H.264 stream of an output container: the part that a file and a live stream have in common."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import AvatarError

if TYPE_CHECKING:
    from av.container import OutputContainer

X264, NVENC, AUTO = "x264", "nvenc", "auto"
ENCODERS = (X264, NVENC, AUTO)
CODECS = {X264: "libx264", NVENC: "h264_nvenc"}
PROBED = 256  # pixels: NVENC takes no picture below 145 x 49
BT709 = 1  # the code point for matrix, primaries and transfer alike (ITU-T H.273)


def check_h264() -> None:
    """Raises AvatarError where H.264 cannot be encoded."""
    if "libx264" not in av.codecs_available:
        raise AvatarError("This PyAV has no libx264, which writing H.264 needs; install PyAV from PyPI.")


def chosen_encoder(name: str) -> str:
    """The encoder for a name of ENCODERS: X264 or NVENC; AUTO is NVENC where it can be opened.

    Raises AvatarError where the one that is asked for cannot be opened.
    """
    if name == AUTO and opens(CODECS[NVENC]):
        return NVENC
    if name == NVENC:
        if not opens(CODECS[NVENC]):
            raise AvatarError(
                "NVIDIA's encoder cannot be opened here (no card, no driver, or a PyAV without it); use x264 or auto.",
                "encoder",
            )
        return NVENC
    check_h264()
    return X264


@cache
def opens(codec: str) -> bool:
    """Whether an encoder can be opened on this machine."""
    try:
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = PROBED, PROBED, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def nvenc_options(x264: Mapping[str, str]) -> dict[str, str]:
    """NVENC's options for x264's: the same key frames and quality, and nothing held back."""
    kept = {name: x264[name] for name in ("g", "bf", "forced-idr") if name in x264}
    return {**kept, "preset": "p4", "tune": "ll", "rc": "vbr", "cq": x264["crf"], "b": "0", "delay": "0"}


def check_quality(crf: int) -> None:
    """Raises AvatarError for a constant rate factor that x264 does not take."""
    if not 1 <= crf <= 51:
        raise AvatarError(f"The quality (crf) is {crf}, expected 1 (best) to 51 (smallest file).", "quality")


def add_h264(
    container: OutputContainer,
    width: int,
    height: int,
    fps: Fraction,
    options: Mapping[str, str],
    encoder: str = "x264",
) -> av.VideoStream:
    """A new yuv420p BT.709 stream, encoded by x264 with these options, or by NVENC with those like them."""
    own = nvenc_options(options) if encoder == NVENC else dict(options)
    stream = container.add_stream(CODECS[encoder], rate=fps, options=own)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT709
    return stream


def checked_frames(frames: Any, width: int, height: int) -> np.ndarray:
    """Frames, numpy or torch, as uint8 [N, height, width, 3]; raises AvatarError for anything else."""
    frames = frames.detach().cpu().numpy() if hasattr(frames, "detach") else np.asarray(frames)
    if frames.shape[1:] != (height, width, 3) or frames.dtype != np.uint8:
        raise AvatarError(
            f"The frames are {frames.dtype} {list(frames.shape)}, "
            f"expected uint8 [N, {height}, {width}, 3]; convert them first."
        )
    return frames


class YuvConverter:
    """Full-range RGB to limited-range BT.709 yuv420p, one picture at a time."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: np.ndarray) -> av.VideoFrame:
        """picture: uint8 [H, W, 3]."""
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
