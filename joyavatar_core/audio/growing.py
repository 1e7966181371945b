"""A voice that is still being made: pushed by another thread, or pulled from an iterator of chunks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ..errors import AvatarError
from .rolling import RollingBuffer
from .source import AudioSource, check_finite, to_native


class GrowingAudio(AudioSource):
    """Live audio: `push` chunks from any thread, then `finish`; readers wait for what they need.

    What lies more than `history_seconds` behind the furthest sample read is forgotten, and reading it raises
    AvatarError; what has not been read yet is never dropped. A chunk is [S] or [channels, S], as for ArrayAudio.
    """

    live = True

    def __init__(self, sample_rate: int, history_seconds: float = 30.0) -> None:
        super().__init__(sample_rate)
        if not 0 < history_seconds < float("inf"):
            raise AvatarError(f"The audio history is {history_seconds} s, expected a positive number of seconds.")
        self._history = int(history_seconds * self.sample_rate)
        self._changed = threading.Condition()
        self._buffer = RollingBuffer()
        self._channels: int | None = None
        self._read_to = 0
        self._finished = False
        self._chunks: Iterator | None = None

    @classmethod
    def from_chunks(
        cls, chunks: Iterable[np.ndarray | torch.Tensor], sample_rate: int, history_seconds: float = 30.0
    ) -> GrowingAudio:
        """A source that takes the next chunk from an iterator whenever a reader needs more."""
        source = cls(sample_rate, history_seconds)
        source._chunks = iter(chunks)
        return source

    @property
    def channels(self) -> int:
        self.wait(1)
        return self._channels or 1

    @property
    def num_samples(self) -> int | None:
        return self._buffer.end if self._finished else None

    @property
    def available(self) -> int:
        return self._buffer.end

    def push(self, samples: np.ndarray | torch.Tensor) -> None:
        """Add the next samples; they are copied. Raises AvatarError for bad samples and after `finish`."""
        native = to_native(samples)
        with self._changed:
            if self._finished:
                raise AvatarError("Audio was pushed after finish(); expected no more, open a new source.")
            check_finite(native, self._buffer.end, self.sample_rate)
            if self._channels not in (None, native.shape[1]):
                raise AvatarError(
                    f"An audio chunk has {native.shape[1]} channel(s) after chunks of {self._channels}; "
                    "expected the same number throughout."
                )
            self._channels = native.shape[1]
            self._buffer.append(native)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that the audio has ended; readers get zeros from here on."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def wait(self, samples: int, timeout: float | None = None) -> bool:
        """As AudioSource.wait. Raises AvatarError where the source has ended without a single sample."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._buffer.end < samples and not self._finished:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left) if self._chunks is None else self._pull()
            if self._finished and self._buffer.end == 0:
                raise AvatarError("The audio ended before its first sample, expected at least one; check the recorder.")
            return self._buffer.end >= samples

    def _pull(self) -> None:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.finish()
        else:
            self.push(chunk)

    def _window(self, start: int, stop: int) -> np.ndarray:
        with self._changed:
            self.wait(stop)
            if start < self._buffer.start:
                raise AvatarError(
                    f"The live audio at {start / self.sample_rate:.2f} s is gone, history begins at "
                    f"{self._buffer.start / self.sample_rate:.2f} s; use a longer history or do not go back."
                )
            window = self._buffer.gather(start, stop)
            self._read_to = max(self._read_to, min(stop, self._buffer.end))
            self._buffer.trim(self._read_to - self._history)
            return window
