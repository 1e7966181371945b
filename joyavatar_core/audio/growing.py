"""Live audio: a source that another thread pushes to, or that pulls from an iterator of chunks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator

import numpy as np
import torch

from ..errors import AvatarError
from .channels import Layout, default_layout, downmix_channels
from .sample_buffer import RollingBuffer
from .source import AudioSource, check_finite, to_float

SLICE_SECONDS = 1.0
Chunk = np.ndarray | torch.Tensor  # [S] or [channels, S], as for ArrayAudio


class GrowingAudio(AudioSource):
    """Live audio: `push` chunks from any thread, then `finish`; readers wait for what they need.

    history_seconds: samples further than this before the last one read are dropped. Reading them raises AvatarError.
        Unread samples are never dropped.
    ahead_seconds: a push waits while more than this is unread, which bounds the memory. None: a push never waits.
    channels: their number; None is that of the first chunk.
    """

    live = True

    def __init__(
        self,
        sample_rate: int,
        history_seconds: float = 30.0,
        ahead_seconds: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(sample_rate)
        for name, seconds in (("history", history_seconds), ("lead", ahead_seconds)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise AvatarError(f"The audio {name} is {seconds} s, expected a positive number of seconds.")
        self._history = int(history_seconds * self.sample_rate)
        self._ahead = None if ahead_seconds is None else int(ahead_seconds * self.sample_rate)
        self._changed = threading.Condition()
        self._buffer = RollingBuffer()
        self._arrivals: deque[tuple[int, float]] = deque()  # (samples there after a push, when)
        self._channels = channels
        self._read_to = 0
        self._wanted = 0  # samples that a reader waits for
        self._finished = False
        self._problem: BaseException | None = None
        self._chunks: Iterator | None = None

    @classmethod
    def from_chunks(cls, chunks: Iterable[Chunk], sample_rate: int, history_seconds: float = 30.0) -> GrowingAudio:
        """A source that takes the next chunk from an iterator whenever a reader needs more."""
        source = cls(sample_rate, history_seconds)
        source._chunks = iter(chunks)
        return source

    @classmethod
    def from_async(
        cls,
        chunks: AsyncIterable[Chunk],
        sample_rate: int,
        history_seconds: float = 30.0,
        ahead_seconds: float = 30.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> GrowingAudio:
        """A source fed from an async iterator, read by a thread other than the loop's.

        loop: the running event loop that `chunks` belongs to; None runs it in a loop and a thread of its own.
        """
        source = cls(sample_rate, history_seconds, ahead_seconds)
        if loop is not None:
            asyncio.run_coroutine_threadsafe(source.feed(chunks), loop)
        else:
            threading.Thread(target=lambda: asyncio.run(source.feed(chunks)), daemon=True).start()
        return source

    @property
    def channels(self) -> int:
        return downmix_channels(self.layout)

    @property
    def layout(self) -> Layout:
        if self._channels is None:
            self.wait(1)
        return default_layout(self._channels or 1)

    @property
    def num_samples(self) -> int | None:
        return self._buffer.end if self._finished else None

    @property
    def available(self) -> int:
        return self._buffer.end

    def arrival(self, samples: int) -> float | None:
        with self._changed:
            return next((when for end, when in self._arrivals if end >= samples), None)

    def push(self, samples: Chunk) -> None:
        """Add the next samples; they are copied. Raises AvatarError for bad samples and after `finish`."""
        native = to_float(samples)
        with self._changed:
            while self._ahead is not None and not self._finished and self._problem is None and self._is_full():
                self._changed.wait()
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
            self._arrivals.append((self._buffer.end, time.monotonic()))
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that the audio has ended; readers get zeros from here on."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    @property
    def problem(self) -> BaseException | None:
        """Why the audio broke off; None where it did not."""
        return self._problem

    def fail(self, problem: BaseException) -> None:
        """Say that the audio broke off: whoever waits for what did not come gets `problem` raised."""
        with self._changed:
            self._problem = problem
            self._changed.notify_all()

    async def feed(self, chunks: AsyncIterable[Chunk]) -> None:
        """Push an async iterator's chunks, then finish, in the loop this is awaited in."""
        try:
            async for chunk in chunks:
                await asyncio.to_thread(self.push, chunk)  # it may wait for the reader
            self.finish()
        except BaseException as problem:  # also a cancelled task: no reader may wait for ever
            stopped = AvatarError("The live audio was cancelled before its end; start it again.")
            self.fail(stopped if isinstance(problem, asyncio.CancelledError) else problem)
            raise

    def wait(self, samples: int, timeout: float | None = None) -> bool:
        """As AudioSource.wait. Raises AvatarError where the source has ended without a single sample."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if samples > self._wanted:
                self._wanted = samples
                self._changed.notify_all()
            while self._buffer.end < samples and not self._finished:
                if self._problem is not None:
                    raise self._problem
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if self._chunks is not None:
                    self._pull()
                else:  # in slices, without which Ctrl-C would not get through on Windows
                    self._changed.wait(SLICE_SECONDS if left is None else min(left, SLICE_SECONDS))
            if self._finished and self._buffer.end == 0:
                raise AvatarError("The audio ended before its first sample, expected at least one; check the recorder.")
            return self._buffer.end >= samples

    def _is_full(self) -> bool:
        return self._buffer.end > max(self._read_to, self._wanted) + self._ahead

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
            while self._arrivals and self._arrivals[0][0] <= self._buffer.start:
                self._arrivals.popleft()
            self._changed.notify_all()
            return window
