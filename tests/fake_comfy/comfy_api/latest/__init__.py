"""Stand-in of the host's node API: as much as this pack's schemas and results use, and nothing more."""

from __future__ import annotations

from . import io, ui

__all__ = ["ComfyExtension", "InputImpl", "io", "ui"]


class ComfyExtension:
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        raise NotImplementedError


class VideoFromFile:
    def __init__(self, file: str) -> None:
        self._file = file

    def get_stream_source(self) -> str:
        return self._file


class InputImpl:
    VideoFromFile = VideoFromFile
