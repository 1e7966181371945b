"""RGB pictures into an H.264 stream of an output container: the part that a file and a live stream have in common."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import AvatarError

if TYPE_CHECKING:
    from av.container import OutputContainer

X264, NVENC, AUTO = "x264", "nvenc", "auto"
ENCODERS = (AUTO, X264, NVENC)
CODECS = {X264: "libx264", NVENC: "h264_nvenc"}
PROBED = (256, 256)  # pixels, where the video's size is not known yet
PROBE_FRAMES = 3
_working: set[tuple[str, int, int]] = set()  # codecs that have worked here, with width and height
BT709 = 1  # the code point for matrix, primaries and transfer alike (ITU-T H.273)


def check_h264() -> None:
    """Raises AvatarError where H.264 cannot be encoded."""
    if "libx264" not in av.codecs_available:
        raise AvatarError("This PyAV has no libx264, which writing H.264 needs; install PyAV from PyPI.")


def chosen_encoder(name: str, width: int = PROBED[0], height: int = PROBED[1]) -> str:
    """The encoder for a name of ENCODERS: X264 or NVENC; AUTO is NVENC where it encodes pictures of this size.

    Raises AvatarError where the one that is asked for does not work.
    """
    if name == AUTO and encodes(CODECS[NVENC], width, height):
        return NVENC
    if name == NVENC:
        if not encodes(CODECS[NVENC], width, height):
            raise AvatarError(
                f"NVIDIA's encoder does not encode {width}x{height} pixels here (no card, no driver, a PyAV without "
                "it, or a picture below 145x49); use x264 or auto.",
                "encoder",
            )
        return NVENC
    check_h264()
    return X264


def encodes(codec: str, width: int, height: int) -> bool:
    """Whether an encoder works on this machine. Only a success is remembered: a full GPU may have room later."""
    if (codec, width, height) not in _working and _probed(codec, width, height):
        _working.add((codec, width, height))
    return (codec, width, height) in _working


def _probed(codec: str, width: int, height: int) -> bool:
    """Whether an encoder gives a packet for every picture, the first a key frame."""
    try:
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 25)
        if codec == CODECS[NVENC]:
            context.options = nvenc_options({"crf": "18", "g": "50", "bf": "0"})
        packets = []
        for number in range(PROBE_FRAMES):
            picture = av.VideoFrame(width, height, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes(plane.buffer_size))
            picture.pts, picture.time_base = number, Fraction(1, 25)
            packets += context.encode(picture)
        packets += context.encode(None)
    except (av.FFmpegError, ValueError):
        return False
    return len(packets) == PROBE_FRAMES and packets[0].is_keyframe


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
