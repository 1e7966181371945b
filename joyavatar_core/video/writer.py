"""VideoWriter: frames and samples go in block by block, a playable file is there at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import partial
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from ..errors import AvatarError
from .audio import AudioEncoder, check_sound
from .containers import (
    GROWING,
    assemble,
    checked_target,
    copied_sound,
    marked,
    open_output,
    saying,
    trim_to_whole_fragments,
)
from .h264 import YuvConverter, add_h264, check_quality, checked_frames, chosen_encoder

TWO_MACROBLOCKS = 32  # pixels
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


class VideoWriter:
    """Writes H.264 + AAC in an mp4, frame-exact, whatever happens to the process.

    Life cycle: `open`, then `write` and `write_audio` in any order and chunking, then `close` or `abort`. As a context
    manager it opens, closes, and aborts when an exception passes through.

    While it grows the video is `<name>.part.mp4` beside the target (with a number if an earlier run left one): it is
    fragmented, so after a crash or kill -9 it plays up to about the last second. `close` copies it without re-encoding
    to a plain mp4 of exactly N / fps seconds under the target's name, at once, and removes it. `abort` keeps what was
    written so far under the growing name, or deletes it with `discard`. Nothing accumulates but the mp4 index of
    `close` (about 30 MB per hour). Same input, same bytes.

    Args:
        path: the target, *.mp4 in a folder that exists; replaced if it is there.
        width, height: pixels, even.
        fps: frames per second, int or Fraction.
        sample_rate: Hz of the sound; None for a silent video. What players do not decode is resampled to 48 kHz.
        channels: 1 or 2.
        crf: 1 (best, largest) ... 51 (worst, smallest).
        encoder: one of h264.ENCODERS; only x264's bytes do not depend on the machine.
        preset: x264's speed, "ultrafast" ... "veryslow".
        metadata: tags for the file; the statement that it is AI-generated is always added and wins.
        discard: whether `abort` deletes the partial file.
    Raises AvatarError, in every method, for arguments and disks that do not work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: int | Fraction,
        sample_rate: int | None = None,
        channels: int = 1,
        *,
        crf: int = 18,
        preset: str = "veryfast",
        metadata: Mapping[str, object] | None = None,
        discard: bool = False,
        encoder: str = "x264",
    ) -> None:
        if not all(isinstance(side, Integral) and 2 <= side <= 8192 and side % 2 == 0 for side in (width, height)):
            raise AvatarError(
                f"The video size is {width}x{height}, expected even numbers of pixels up to 8192; change it."
            )
        if not 0.1 <= fps <= 1000:
            raise AvatarError(f"The frame rate is {fps}, expected 0.1 to 1000 frames/s; change it.")
        check_quality(crf)
        if preset not in PRESETS:
            raise AvatarError(f"The encoder preset is {preset!r}, expected one of {', '.join(PRESETS)}; choose one.")
        self._encoder = chosen_encoder(encoder, width, height)
        if sample_rate is not None:
            check_sound(sample_rate, channels)
        self.path = checked_target(path)
        self.growing: Path | None = None  # the partial file, while there is one
        self.frames = 0  # given so far
        self.width, self.height = width, height
        self.fps = Fraction(fps).limit_denominator(1001)
        self.metadata = marked(metadata)
        self._sound = (sample_rate, channels)
        self._options = {
            "preset": preset,
            "crf": str(crf),
            "g": str(max(1, round(2 * self.fps))),  # a key frame every 2 s to seek to
            "bf": "0",  # frame n is packet n: exact copies and joins, no edit list
            # What x264 holds back is lost when the process is killed. 4 frames are also as small as 10 with B-frames
            # (measured at 512x512, 16 frames/s: 460 and 444 kB for 6 s, 37.8 dB both; 10 without B-frames 549 kB).
            "rc-lookahead": "4",
            "threads": "1",  # the bytes must not depend on the machine
        }
        if min(width, height) <= TWO_MACROBLOCKS:  # x264's look-ahead reads unset memory there: other bytes each time
            self._options |= {"mbtree": "0", "rc-lookahead": "0"}
        self._discard = discard
        self._state = "new"
        self._failed = False

    def open(self) -> VideoWriter:
        """Create the growing file; returns self."""
        if self._state != "new":
            raise AvatarError(
                f"The writer of {self.path.name} is {self._state}, and can be opened once; make a new one."
            )
        with saying(f"{self.path} cannot be written", "choose another place"):
            self.growing = self._claim_growing_name()
            self._container = open_output(self.growing, GROWING, self.metadata)
            self._video = add_h264(self._container, self.width, self.height, self.fps, self._options, self._encoder)
            self._to_yuv = YuvConverter()
            self._audio = None
            self._state = "open"
            sample_rate, channels = self._sound
            try:
                if sample_rate is not None:
                    self._audio = AudioEncoder(self._container, sample_rate, channels)
                self._container.start_encoding()  # the header is on the disk from here on
            except BaseException:
                self.abort(discard=True)
                raise
        return self

    def write(self, frames: Any) -> None:
        """Append frames: uint8 RGB [N, H, W, 3], numpy or torch."""
        self._expect_open()
        for picture in checked_frames(frames, self.width, self.height):
            frame = self._to_yuv(picture)
            frame.pts, frame.time_base = self.frames, 1 / self.fps
            self._mux(self._encoded(frame))
            self.frames += 1

    def write_audio(self, samples: Any) -> None:
        """Append sound: float samples [S] or [S, C], numpy or torch, full scale +-1."""
        self._expect_open()
        if self._audio is None:
            raise AvatarError(f"{self.path.name} was opened without sound; give sample_rate to the writer.")
        self._mux(self._audio.encode(samples))

    def close(self) -> Path:
        """Finish: the target is there, complete, or (on an error) the growing file is kept. Returns the target."""
        self._expect_open()
        if not self.frames:
            self.abort(discard=True)
            raise AvatarError(f"No frames were written, so there is no {self.path.name}; write some before closing.")
        with saying(f"{self.path} could not be completed", f"what was written is in {self.growing}, free some space"):
            self._finish_encoding()
            self._copy(self.path)
        with suppress(OSError):  # on Windows a player may have it open
            self.growing.unlink()
        self.growing = None
        return self.path

    def abort(self, discard: bool | None = None) -> Path | None:
        """Stop early: returns the playable partial file, None if there is none or it was to be discarded."""
        if self._state == "open":
            keep = self.frames > 0 and not (self._discard if discard is None else discard)
            with suppress(OSError, av.FFmpegError):  # whatever breaks here, the fragments on the disk play
                self._finish_encoding()
                if keep and not self._failed:
                    self._copy(self.growing)
            if not keep:
                with suppress(OSError):
                    self.growing.unlink()
                self.growing = None
        return self.growing

    def __enter__(self) -> VideoWriter:
        return self.open() if self._state == "new" else self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._state == "open":
            self.close()

    def _claim_growing_name(self) -> Path:
        """Create an empty `<name>.part.mp4`, or `.part2.mp4`, ...: an earlier run's remains are not overwritten."""
        number = 1
        while True:
            name = self.path.with_name(f"{self.path.stem}.part{number if number > 1 else ''}.mp4")
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                number += 1
            else:
                return name

    def _encoded(self, frame: av.VideoFrame) -> Iterator[av.Packet]:
        """Packets of a frame. It is encoded when the first one is asked for: in `_mux`, which reports what fails."""
        yield from self._video.encode(frame)

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        advice = f"the video so far is in {self.growing}, free some space and start again"
        with saying(f"{self.path.name} cannot be written any further", advice):
            try:
                for packet in packets:
                    self._container.mux(packet)
            except (OSError, av.FFmpegError):
                self._failed = True
                raise

    def _finish_encoding(self) -> None:
        self._state = "closed"
        try:
            try:
                if self.frames and not self._failed:
                    self._container.mux(self._video.encode(None))
                if self._audio is not None and self._audio.given and not self._failed:
                    self._container.mux(list(self._audio.flush()))
            finally:
                self._container.close()
        except (OSError, av.FFmpegError):
            self._failed = True
            raise
        finally:
            if self._failed:
                with suppress(OSError):
                    trim_to_whole_fragments(self.growing)

    def _copy(self, target: Path) -> None:
        sound = None
        if self._audio is not None and self._audio.given:
            rate = self._audio.rate
            end_of_picture = int(self.frames * rate / self.fps)
            samples = min(self._audio.length(self._audio.given), end_of_picture)
            sound = partial(copied_sound, self.growing, rate=rate, samples=samples)
        assemble(target, [self.growing], self.fps, self.frames, self.metadata, sound)

    def _expect_open(self) -> None:
        if self._state != "open":
            raise AvatarError(
                f"The writer of {self.path.name} is {self._state}, expected open; nothing can be written now."
            )
