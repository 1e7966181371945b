"""The writer of videos where PyAV is installed, else None and why."""

from __future__ import annotations

try:
    from joyavatar_core.video import VideoWriter
    from joyavatar_core.video.h264 import chosen_encoder

    NO_VIDEO = ""
except ImportError as missing:
    VideoWriter, chosen_encoder, NO_VIDEO = None, None, f"no H.264: {missing}"
