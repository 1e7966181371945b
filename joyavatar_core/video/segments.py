"""Joining independently encoded segments of one video without re-encoding."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av

from ..errors import AvatarError
from ..paths import libav_url
from .audio import AudioEncoder
from .containers import (
    assemble,
    checked_target,
    copied_packets,
    copied_sound,
    marked,
    saying,
    timed_audio,
    trim_to_whole_fragments,
)

if TYPE_CHECKING:
    import numpy as np

    from ..audio import AudioSource

CONTAINERS_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")  # lower case


def join_segments(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    audio: tuple[np.ndarray, int] | AudioSource | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Join segments: the decoded frames stay the same, and the sound is encoded once over all of them.

    Args:
        paths: files closed by `VideoWriter`, all with the same size, fps, crf and preset; their own sound is left out.
        out: the joined mp4.
        audio: (samples float32 [S] or [S, C], sample rate in Hz), numpy or torch, or a source that is read in windows;
            cut where the picture ends.
        metadata: tags, as in `VideoWriter`.
    Raises AvatarError for segments that do not fit together and for files that cannot be read or written.
    """
    target = checked_target(out)
    segments = [Path(path).absolute() for path in paths]
    if not segments:
        raise AvatarError("There are no segments to join, expected at least one file; give some.")
    with saying(f"The segments could not be joined into {target}", "check the files and the free space"):
        formats, counts = zip(*map(inspect_segment, segments), strict=True)
        for path, found in zip(segments, formats, strict=True):
            if found != formats[0]:
                raise AvatarError(
                    f"{path} is {describe(found)}, expected {describe(formats[0])} like the first segment; "
                    "write all segments with the same settings."
                )
        fps, frames = formats[0][0], sum(counts)

        def sound(output: av.container.OutputContainer) -> Iterator[av.Packet]:
            if isinstance(audio, tuple):
                samples, sample_rate = audio
                encoder = AudioEncoder(output, sample_rate, 1 if samples.ndim == 1 else samples.shape[-1])
                given, packets = len(samples), encoder.encode_all(samples)
            else:
                encoder = AudioEncoder(output, audio.sample_rate, audio.channels)
                given, packets = audio.num_samples, encode_source(encoder, audio, int(frames * audio.sample_rate / fps))
            length = min(encoder.length(given), int(frames * encoder.rate / fps))
            return timed_audio(packets, encoder.stream, encoder.rate, length)

        has_sound = audio is not None and (not isinstance(audio, tuple) or len(audio[0]))
        assemble(target, segments, fps, frames, marked(metadata), sound if has_sound else None)
    return target


def encode_source(encoder: AudioEncoder, source: AudioSource, stop: int) -> Iterator[av.Packet]:
    """The packets of a source's first `stop` samples (fewer where it ends), a second of it in memory at a time."""
    stop = min(stop, source.num_samples)
    for start in range(0, stop, source.sample_rate):
        yield from encoder.encode(source.read_native(start, min(start + source.sample_rate, stop)))
    yield from encoder.flush()


def inspect_segment(path: Path) -> tuple[tuple[Fraction, int, int, bytes], int]:
    """What has to agree between segments (fps, width, height, H.264 parameter sets), and the number of frames."""
    with av.open(libav_url(path)) as source:
        if not source.streams.video or not source.streams.video[0].frames:
            raise AvatarError(
                f"{path} holds no finished video, expected a segment closed by VideoWriter; leave it out."
            )
        stream = source.streams.video[0]
        context = stream.codec_context
        return (stream.average_rate, context.width, context.height, bytes(context.extradata or b"")), stream.frames


def tags_of(path: Path) -> dict[str, str]:
    """The tags of a video, without the container's own."""
    with av.open(libav_url(path)) as source:
        return {name: value for name, value in source.metadata.items() if name.lower() not in CONTAINERS_TAGS}


def recover_segment(growing: Path, out: Path) -> None:
    """Cut a growing file after its last complete fragment and copy it, pictures and sound, to a plain mp4.

    Raises OSError or av.FFmpegError where not one frame can be saved.
    """
    trim_to_whole_fragments(growing)
    frames = sum(1 for _ in copied_packets(growing, "video"))
    if not frames:
        raise OSError(errno.ENODATA, "no whole fragment")
    with av.open(libav_url(growing)) as source:
        stream = source.streams.video[0]
        fps = stream.codec_context.framerate or stream.average_rate  # a cut file's average is not exact
        rate = source.streams.audio[0].rate if source.streams.audio else None
    sound = None if rate is None else partial(copied_sound, growing, rate=rate, samples=int(frames * rate / fps))
    assemble(out, [growing], fps, frames, marked(tags_of(growing)), sound)


def describe(found: tuple[Fraction, int, int, bytes]) -> str:
    """A segment's format in words; the encoder's parameter sets are told apart by their last bytes."""
    fps, width, height, parameters = found
    return f"{width}x{height} at {fps} frames/s with H.264 parameters ...{parameters.hex()[-12:]}"
