"""Video files that survive anything: H.264 + AAC, frame-exact, marked as AI-generated."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .containers import AI_NOTICE
    from .segments import join_segments
    from .writer import VideoWriter

__all__ = ["AI_NOTICE", "VideoWriter", "join_segments"]
PLACES = {"AI_NOTICE": "containers", "VideoWriter": "writer", "join_segments": "segments"}


def __getattr__(name: str):
    """PyAV is loaded only where a video is read or written."""
    from importlib import import_module

    if name not in PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{PLACES[name]}", __name__), name)
