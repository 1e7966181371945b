"""A voice in a file of any format PyAV reads, decoded in passing: hours of it cost constant memory."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr

from ..errors import AvatarError
from ..paths import libav_url
from .channels import UNKNOWN, Layout, default_layout, downmix_channels, mapped
from .joined import PartOfFile, parts_of
from .sample_buffer import RollingBuffer
from .source import AudioSource, check_channels, to_float
from .survey import Survey, survey

log = logging.getLogger(__name__)

SEEK_SECONDS = 10  # a jump ahead shorter than this is decoded rather than sought
PLANAR = {"u8p": np.uint8, "s16p": np.int16, "s32p": np.int32, "fltp": np.float32, "dblp": np.float64}
SELF_CONTAINED = ("flac", "alac")  # and pcm_*: codecs whose packets decode the same whatever came before


class FileAudio(AudioSource):
    """An audio (or video) file, read in windows with the last `history_seconds` kept decoded.

    Positions are counted in samples of the file's first format; where it changes on the way (joined files, chained
    Ogg, broadcasts), the rest is brought to that rate and layout. Of several audio tracks the default one is read.
    Going back further than the history decodes again: from a seek for PCM, FLAC and ALAC, from the beginning for codecs
    that carry state from packet to packet (MP3, AAC, Opus, ...), so that a window's samples are the same on every way
    to it. Safe to share between threads.
    Raises AvatarError for a file that is missing, is no audio, has no audio track or is empty.
    """

    def __init__(self, path: str | os.PathLike, history_seconds: float = 30.0) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._buffer = RollingBuffer()
        self._survey: Survey | None = None
        try:
            self._parts = parts_of(self.path)
        except OSError as problem:
            raise self._unreadable(problem) from None
        with closing(self._decode()) as frames:
            first = next(frames, None)
            if first is None:
                raise AvatarError(f"The audio track of '{self.path}' is empty, expected at least one sample.")
            super().__init__(first.sample_rate)
            self._layout = layout_of(first)
            self._history = int(history_seconds * self.sample_rate)
            self._seekable = len(self._parts) == 1 and self._can_seek(first)
        self._frames: Iterator[np.ndarray] | None = None

    @property
    def channels(self) -> int:
        return downmix_channels(self._layout)

    @property
    def layout(self) -> Layout:
        return self._layout

    @property
    def num_samples(self) -> int:
        """Length in samples, counted by decoding the file once (seconds per hour of sound), then cached."""
        return self.survey().num_samples

    def survey(self) -> Survey:
        """The survey of the whole file; the file is decoded once, then the result is cached."""
        with self._lock:
            if self._survey is None:
                self._survey = survey(self)
            return self._survey

    def close(self) -> None:
        """Close the file and drop what is decoded; reading on opens it again."""
        with self._lock:
            if self._frames is not None:
                self._frames.close()
            self._frames = None

    def _unreadable(self, problem: Exception) -> AvatarError:
        reason = getattr(problem, "strerror", None) or problem
        return AvatarError(
            f"'{self.path}' cannot be opened as audio ({reason}); expected a sound or video file such as "
            "wav, flac, mp3 or m4a."
        )

    def _open(self, part: int = 0) -> av.container.InputContainer:
        """The file, or the part-th of the files that were joined to it."""
        whole = len(self._parts) == 1
        source = libav_url(self.path) if whole else PartOfFile(self.path, *self._parts[part])
        try:
            # A playlist names other files and addresses: none of them is opened.
            container = av.open(source, options={"protocol_whitelist": "file"})
        except (av.FFmpegError, OSError, ValueError) as problem:
            raise self._unreadable(problem) from None
        if not container.streams.audio:
            container.close()
            raise AvatarError(f"'{self.path}' has no audio track; expected a file with sound.")
        return container

    def _can_seek(self, first: av.AudioFrame) -> bool:
        with self._open() as container:
            stream = heard_track(container)
            codec = stream.codec_context.name
            return (
                (codec.startswith("pcm_") or codec in SELF_CONTAINED)
                and stream.time_base == Fraction(1, self.sample_rate)
                and first.pts == 0
            )

    def _decode(self, position: int = 0) -> Iterator[av.AudioFrame]:
        """All frames; from one at or before sample `position` where the file can be sought."""
        for part in range(len(self._parts)):
            try:
                container = self._open(part)
            except AvatarError as problem:
                if part == 0:
                    raise
                log.warning("part %d of '%s' is left out: %s", part + 1, self.path, problem)
                continue
            with container:
                stream = heard_track(container)
                if position:
                    container.seek(position, stream=stream)
                try:
                    for packet in container.demux(stream):
                        try:
                            yield from packet.decode()
                        except av.FFmpegError:  # a damaged packet, often the last of a cut file: go on behind it
                            continue
                except av.FFmpegError as problem:  # nothing behind this can be found
                    log.warning("'%s' is damaged and ends early: %s", self.path, problem.strerror)

    def _uniform(self, frames: Iterator[av.AudioFrame]) -> Iterator[np.ndarray]:
        """Decoded frames as [S, layout] at the file's rate, whatever they change to on the way."""
        current, resampler = None, None
        with closing(frames):
            for frame in frames:
                rate, layout = frame.sample_rate, layout_of(frame)
                if (rate, layout) != current:
                    if resampler is not None:
                        yield self._mapped(resampler.resample_chunk(nothing(current[1]), last=True), current[1])
                    if current is not None and self._survey is None:  # said once, at the first look
                        log.info("'%s' goes on at %d Hz with %d channels", self.path, rate, len(layout))
                    current, resampler = (rate, layout), None
                    if rate != self.sample_rate:
                        resampler = soxr.ResampleStream(rate, self.sample_rate, len(layout), "float32", "HQ")
                samples = samples_of(frame)
                yield self._mapped(samples if resampler is None else resampler.resample_chunk(samples), layout)
            if resampler is not None:
                yield self._mapped(resampler.resample_chunk(nothing(current[1]), last=True), current[1])

    def _mapped(self, samples: np.ndarray, layout: Layout) -> np.ndarray:
        return mapped(samples, layout, self._layout, self.sample_rate)

    def _rewind(self, position: int) -> None:
        """Begin decoding at or, for most codecs far, before sample `position`."""
        self.close()
        start = 0
        frames = self._decode(position if self._seekable else 0)
        if position and self._seekable:
            first = next(frames, None)
            if first is None or first.pts is None or first.pts > position or not self._is_first_format(first):
                self._seekable = False  # an index that lies, or a format that changes before this place
                return self._rewind(0)
            start, rest = first.pts, frames
            frames = (frame for part in ((first,), rest) for frame in part)
        self._frames = self._uniform(frames)
        self._buffer.reset(start)

    def _is_first_format(self, frame: av.AudioFrame) -> bool:
        return (frame.sample_rate, layout_of(frame)) == (self.sample_rate, self._layout)

    def _window(self, start: int, stop: int) -> np.ndarray:
        with self._lock:
            ahead = start - self._buffer.end
            far = self._seekable and ahead > SEEK_SECONDS * self.sample_rate
            if self._frames is None or start < self._buffer.start or far:
                self._rewind(start)
            while self._buffer.end < stop:
                samples = next(self._frames, None)
                if samples is None:
                    break
                self._buffer.append(samples)
                self._buffer.trim(min(start, self._buffer.end - self._history))
            return self._buffer.gather(start, stop)


def heard_track(container: av.container.InputContainer) -> av.AudioStream:
    """The track that players choose: marked as default, not as a commentary for the blind, of the highest rate."""
    return container.streams.best("audio") or container.streams.audio[0]


def layout_of(frame: av.AudioFrame) -> Layout:
    """A frame's channels by name."""
    names = tuple(channel.name for channel in frame.layout.channels)
    return default_layout(len(names)) if UNKNOWN in names or len(names) <= 2 else names


def samples_of(frame: av.AudioFrame) -> np.ndarray:
    """A frame as float32 [S, channels]. Raises AvatarError for more channels than are known."""
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        return to_float(frame.to_ndarray().reshape(frame.samples, -1).T)
    check_channels(channels)
    # Not to_ndarray: of 8 planes PyAV (18.1) finds 9, and reading the last one ends the process.
    kind = PLANAR[frame.format.name]
    planes = [np.frombuffer(frame.planes[index], kind)[: frame.samples] for index in range(channels)]
    return to_float(np.stack(planes))


def nothing(layout: Layout) -> np.ndarray:
    return np.zeros((0, len(layout)), np.float32)
