"""Video files that survive anything: H.264 + AAC, frame-exact, marked as AI-generated."""

from .containers import AI_NOTICE
from .segments import join_segments
from .writer import VideoWriter

__all__ = ["AI_NOTICE", "VideoWriter", "join_segments"]
