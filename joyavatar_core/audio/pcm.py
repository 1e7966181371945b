"""Raw PCM from a pipe: bytes in any portions become samples of a GrowingAudio, read by a thread."""

from __future__ import annotations

import logging
import threading
from typing import BinaryIO

import numpy as np

from ..errors import AvatarError
from .growing import GrowingAudio
from .pcm_header import after_header
from .source import MAX_CHANNELS

log = logging.getLogger(__name__)

PCM_FORMATS = {"s16le": "<i2", "f32le": "<f4"}  # names as in ffmpeg -f
# Read in another format by mistake, sound becomes floats of any size; 36 dB over full scale is no voice.
LOUDEST = 64.0
READ_BYTES = 1 << 14
HISTORY_SECONDS = 90.0  # more than the longest left context of an encoder
AHEAD_SECONDS = 30.0  # what a pipe faster than the avatar is buffered


def read_pcm(
    stream: BinaryIO, sample_rate: int, channels: int = 1, sample_format: str = "s16le", closes: bool = False
) -> GrowingAudio:
    """The voice in a binary stream of interleaved samples, growing as they come.

    stream: anything with `read1` or an unbuffered `read`, e.g. sys.stdin.buffer. sample_rate in Hz, channels 1 to 8.
    closes: close the stream when no more is read of it, so that whoever writes into a pipe is not left waiting.
    Bytes of a sample that the stream ends in the midst of are dropped with a warning. Raises AvatarError for settings
    that cannot be; for NaN or absurd samples and a failing stream it is raised where the sound is read.
    """
    if sample_format not in PCM_FORMATS:
        raise AvatarError(f"The PCM format is '{sample_format}', expected one of {', '.join(PCM_FORMATS)}.")
    if not (isinstance(channels, int) and 1 <= channels <= MAX_CHANNELS):
        raise AvatarError(f"The PCM has {channels} channels, expected 1 to {MAX_CHANNELS}; mix it down.")
    source = GrowingAudio(sample_rate, HISTORY_SECONDS, AHEAD_SECONDS, channels=channels)

    def pump() -> None:
        try:
            for samples in decoded(stream, sample_rate, channels, sample_format):
                source.push(samples)
            source.finish()
        except AvatarError as problem:
            source.fail(problem)
        except Exception as problem:  # whatever a caller's stream raises: no reader may wait for ever
            source.fail(AvatarError(f"The PCM stream broke off ({problem}); start it again."))
        finally:
            if closes:
                stream.close()

    threading.Thread(target=pump, name="pcm", daemon=True).start()
    return source


def decoded(stream: BinaryIO, sample_rate: int, channels: int, sample_format: str):
    """The stream as arrays [channels, S], whole samples only, without the header of a WAV."""
    dtype = np.dtype(PCM_FORMATS[sample_format])
    size = dtype.itemsize * channels
    read = getattr(stream, "read1", stream.read)
    rest, (data, left) = b"", after_header(read, sample_rate, channels, sample_format)
    while data or (data := read(int(min(READ_BYTES, left)))):
        data, left = rest + data, left - len(data)
        whole = len(data) // size * size
        rest = data[whole:]
        if whole:
            samples = np.frombuffer(data[:whole], dtype).reshape(-1, channels).T
            check_loudness(samples, sample_format)
            yield samples
        data = b""
    if rest:
        log.warning("the PCM ended inside a sample (%d of %d bytes), which was dropped", len(rest), size)


def check_loudness(samples: np.ndarray, sample_format: str) -> None:
    """Raises AvatarError for floats that are no sound; NaN and infinity are the source's to refuse."""
    if samples.dtype.kind == "f":
        loudest = np.abs(np.where(np.isfinite(samples), samples, 0)).max()
        if loudest > LOUDEST:
            raise AvatarError(
                f"The PCM holds a sample of {loudest:.3g}, expected about -1 to 1; is it really {sample_format}?"
            )
