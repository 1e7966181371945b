"""Resumable videos: segments and states in a folder, joined into one file at the end."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interval import DEFAULT_INTERVAL, Interval
    from .recording import Recording
    from .recovery import join_recording

__all__ = ["DEFAULT_INTERVAL", "Interval", "Recording", "join_recording"]
PLACES = {
    "DEFAULT_INTERVAL": "interval", "Interval": "interval", "Recording": "recording", "join_recording": "recovery",
}  # fmt: skip


def __getattr__(name: str):
    """Import on first use: fingerprints do not need PyAV, which recordings load."""
    from importlib import import_module

    if name not in PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{PLACES[name]}", __name__), name)
