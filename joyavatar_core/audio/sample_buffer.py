"""The newest samples of an audio stream: a queue of chunks."""

from __future__ import annotations

from collections import deque

import numpy as np


class RollingBuffer:
    """Samples [start, end) of a stream as a queue of chunks; empty after `reset`, filled by `append`, cut by `trim`."""

    def __init__(self) -> None:
        self._chunks: deque[np.ndarray] = deque()  # each [S, channels]
        self.reset(0)

    def reset(self, position: int) -> None:
        """Drop all samples and continue at sample `position`."""
        self._chunks.clear()
        self.start = self.end = position

    def append(self, chunk: np.ndarray) -> None:
        """Add the next samples, [S, channels]; the buffer keeps the array."""
        if len(chunk):
            self._chunks.append(chunk)
            self.end += len(chunk)

    def trim(self, before: int) -> None:
        """Drop the chunks that end at or before sample `before`."""
        while self._chunks and self.start + len(self._chunks[0]) <= before:
            self.start += len(self._chunks.popleft())

    def gather(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) as [S, channels]; fewer where the buffer ends before `stop`, none where it is empty."""
        parts, position = [np.zeros((0, self._chunks[0].shape[1] if self._chunks else 1), np.float32)], self.start
        for chunk in self._chunks:
            if position >= stop:
                break
            if position + len(chunk) > start:
                parts.append(chunk[max(0, start - position) : stop - position])
            position += len(chunk)
        return np.concatenate(parts)
