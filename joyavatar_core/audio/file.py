"""A voice in a file of any format PyAV reads, decoded in passing: hours of it cost constant memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..errors import AvatarError
from .rolling import RollingBuffer
from .source import AudioSource, to_native

SEEK_SECONDS = 10  # a jump ahead shorter than this is decoded rather than sought
SELF_CONTAINED = ("flac", "alac")  # and pcm_*: codecs whose packets decode the same whatever came before


class FileAudio(AudioSource):
    """An audio (or video) file, read in windows with the last `history_seconds` kept decoded.

    Positions are counted in decoded samples. Going back further than the history decodes again: from a seek for PCM,
    FLAC and ALAC, from the beginning for codecs that carry state from packet to packet (MP3, AAC, Opus, ...), so that
    a window's samples are the same on every way to it. Safe to share between threads.
    Raises AvatarError for a file that is missing, is no audio, has no audio track or is empty.
    """

    def __init__(self, path: str | os.PathLike, history_seconds: float = 30.0) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._buffer = RollingBuffer()
        self._num_samples: int | None = None
        with self._open() as container:
            stream = container.streams.audio[0]
            first = next(_decode(container), None)
            if first is None:
                raise AvatarError(f"The audio track of '{self.path}' is empty, expected at least one sample.")
            super().__init__(first.sample_rate)
            self._layout = (first.sample_rate, first.layout.nb_channels)
            self._channels = self._to_native(first).shape[1]
            self._history = int(history_seconds * self.sample_rate)
            codec = stream.codec_context.name
            self._seekable = (
                (codec.startswith("pcm_") or codec in SELF_CONTAINED)
                and stream.time_base == Fraction(1, self.sample_rate)
                and first.pts == 0
            )
        self._container = None

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def num_samples(self) -> int:
        """Length in samples, counted by decoding the file once (seconds per hour of sound), then remembered."""
        with self._lock:
            if self._num_samples is None:
                with self._open() as container:
                    self._num_samples = sum(frame.samples for frame in _decode(container))
            return self._num_samples

    def close(self) -> None:
        """Close the file and drop what is decoded; reading on opens it again."""
        with self._lock:
            if self._container is not None:
                self._container.close()
            self._container = None

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise AvatarError(
                f"'{self.path}' cannot be opened as audio ({reason}); expected a sound or video file such as "
                "wav, flac, mp3 or m4a."
            ) from None
        if not container.streams.audio:
            container.close()
            raise AvatarError(f"'{self.path}' has no audio track; expected a file with sound.")
        return container

    def _to_native(self, frame: av.AudioFrame) -> np.ndarray:
        layout = (frame.sample_rate, frame.layout.nb_channels)
        if layout != self._layout:
            raise AvatarError(
                f"'{self.path}' changes its (sample rate, channels) from {self._layout} to {layout} on the way; "
                "expected one format throughout, convert it first."
            )
        samples = frame.to_ndarray()  # planar: [channels, S]; packed: [1, S * channels]
        return to_native(samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T)

    def _rewind(self, position: int) -> None:
        """Begin decoding at or, for most codecs far, before sample `position`."""
        self.close()
        self._container = self._open()
        self._frames = _decode(self._container)
        self._buffer.reset(0)
        if position and self._seekable:
            self._container.seek(position, stream=self._container.streams.audio[0])
            first = next(self._frames, None)
            if first is None or first.pts is None or first.pts > position:  # an index that lies
                self._seekable = False
                return self._rewind(0)
            self._buffer.reset(first.pts)
            self._buffer.append(self._to_native(first))

    def _window(self, start: int, stop: int) -> np.ndarray:
        with self._lock:
            ahead = start - self._buffer.end
            far = self._seekable and ahead > SEEK_SECONDS * self.sample_rate
            if self._container is None or start < self._buffer.start or far:
                self._rewind(start)
            while self._buffer.end < stop:
                frame = next(self._frames, None)
                if frame is None:
                    break
                self._buffer.append(self._to_native(frame))
                self._buffer.trim(min(start, self._buffer.end - self._history))
            return self._buffer.gather(start, stop)


def _decode(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    for packet in container.demux(container.streams.audio[0]):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:  # a damaged packet, often the last of a cut file: go on behind it
            continue
