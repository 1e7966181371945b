"""Videos that survive their process: segments and states in a folder, joined into one file at the end."""

from .interval import DEFAULT_INTERVAL, Interval
from .recording import Recording
from .salvage import join_recording

__all__ = ["DEFAULT_INTERVAL", "Interval", "Recording", "join_recording"]
