"""Joining independently encoded segments of one video without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from ..errors import AvatarError
from .audio import AudioEncoder
from .containers import assemble, checked_target, marked, saying, timed_audio

if TYPE_CHECKING:
    import numpy as np


def join_segments(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    audio: tuple[np.ndarray, int] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Put segments one behind another: the decoded frames are exactly theirs, the sound is encoded once over all.

    Args:
        paths: files closed by `VideoWriter`, all with the same size, fps, crf and preset; their own sound is left out.
        out: the joined mp4.
        audio: (samples float32 [S] or [S, C], sample rate in Hz), numpy or torch; cut where the picture ends.
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
            samples, sample_rate = audio
            encoder = AudioEncoder(output, sample_rate, 1 if samples.ndim == 1 else samples.shape[-1])
            length = min(encoder.length(len(samples)), int(frames * encoder.rate / fps))
            return timed_audio(encoder.encode_all(samples), encoder.stream, encoder.rate, length)

        has_sound = audio is not None and len(audio[0])
        assemble(target, segments, fps, frames, marked(metadata), sound if has_sound else None)
    return target


def inspect_segment(path: Path) -> tuple[tuple[Fraction, int, int, bytes], int]:
    """What has to agree between segments (fps, width, height, H.264 parameter sets), and the number of frames."""
    with av.open(str(path)) as source:
        if not source.streams.video or not source.streams.video[0].frames:
            raise AvatarError(
                f"{path} holds no finished video, expected a segment closed by VideoWriter; leave it out."
            )
        stream = source.streams.video[0]
        context = stream.codec_context
        return (stream.average_rate, context.width, context.height, bytes(context.extradata or b"")), stream.frames


def describe(found: tuple[Fraction, int, int, bytes]) -> str:
    """A segment's format in words; the encoder's parameter sets are told apart by their last bytes."""
    fps, width, height, parameters = found
    return f"{width}x{height} at {fps} frames/s with H.264 parameters ...{parameters.hex()[-12:]}"
