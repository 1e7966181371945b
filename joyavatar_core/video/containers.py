"""The two mp4 layouts (fragmented while it grows, plain when done) and stream copies between them."""

from __future__ import annotations

import heapq
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import av

from ..errors import AvatarError
from ..paths import libav_url, replacing
from .audio import AudioEncoder

# The IPTC vocabulary is what C2PA, search engines and the EU AI Act's code of practice point to:
# https://cv.iptc.org/newscodes/digitalsourcetype/
AI_NOTICE = {
    "comment": "AI-generated video: the moving picture was synthesised by a neural network (ComfyUI-JoyAvatar).",
    "synthetic_media": "true",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}

FRAGMENT_SECONDS = 0.5
GROWING = {
    # A header without samples first, then self-contained fragments: whatever has reached the disk plays.
    "movflags": "+empty_moov+default_base_moof+frag_keyframe+use_metadata_tags",
    "frag_duration": str(int(FRAGMENT_SECONDS * 1e6)),
    "flush_packets": "1",
    # Frames do not wait longer than this for sound that comes later (libavformat's default is 10 s).
    "max_interleave_delta": str(int(FRAGMENT_SECONDS * 1e6)),
    "fflags": "+bitexact",  # no version, no clock: same input, same bytes
}


def plain(fps: Fraction) -> dict[str, str]:
    """The layout of a finished file: index in front, times counted in a unit in which every frame is whole."""
    unit = str(fps.numerator * max(1, 10_000 // fps.numerator))  # 1 ms, the usual one, would round 30000/1001
    return {
        "movflags": "+faststart+use_metadata_tags",
        "movie_timescale": unit,
        "video_track_timescale": unit,
        "write_btrt": "0",  # it would be the growing file's, which depends on how it was fed
        "fflags": "+bitexact",
    }


@contextmanager
def saying(what: str, advice: str) -> Iterator[None]:
    """Turn a failing disk or codec into one sentence: `what` failed, the system's reason, `advice`."""
    try:
        yield
    except (OSError, av.FFmpegError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise AvatarError(f"{what}: {reason}; {advice}.") from None


def marked(metadata: Mapping[str, object] | None) -> dict[str, str]:
    """The caller's tags (what is not a string becomes JSON) and `AI_NOTICE`, which wins."""
    text = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in (metadata or {}).items()}
    return {**{key: value.encode("utf-8", "replace").decode() for key, value in text.items()}, **AI_NOTICE}


def checked_target(path: str | os.PathLike[str]) -> Path:
    """`path` made absolute; raises AvatarError where no mp4 can be put."""
    target = Path(os.path.expanduser(path)).absolute()
    if target.is_dir():
        raise AvatarError(f"{target} is a folder, expected the name of a video file; add a file name.")
    if target.suffix.lower() != ".mp4":
        raise AvatarError(f"The video's name is {target.name!r}, expected one that ends in .mp4; rename it.")
    if not target.parent.is_dir():
        raise AvatarError(f"The folder {target.parent} does not exist, so {target.name} cannot go there; create it.")
    return target


def open_output(path: Path, layout: Mapping[str, str], metadata: Mapping[str, str]) -> av.container.OutputContainer:
    """A new mp4 at `path` in one of the two layouts, with its tags."""
    container = av.open(libav_url(path), "w", format="mp4", container_options=dict(layout))
    container.metadata.update(metadata)
    return container


def copied_packets(path: Path, kind: str) -> Iterator[av.Packet]:
    """The encoded packets of the file's only stream of this kind ("video" or "audio"), in order."""
    with av.open(libav_url(path)) as source:
        for packet in source.demux(**{kind: 0}):
            if packet.size:  # the last one is an empty end mark
                yield packet


def timed_video(packets: Iterator[av.Packet], stream: av.VideoStream, fps: Fraction) -> Iterator[av.Packet]:
    """Packet n shown at n / fps for 1 / fps: exact because the encoder is run without B-frames."""
    for index, packet in enumerate(packets):
        packet.stream, packet.time_base = stream, 1 / fps
        packet.pts = packet.dts = index
        packet.duration = 1
        yield packet


def timed_audio(packets: Iterator[av.Packet], stream: av.AudioStream, rate: int, samples: int) -> Iterator[av.Packet]:
    """AAC packets that start at minus the encoder's priming, which players skip, and end after `samples`."""
    position = -AudioEncoder.PRIMING
    with closing(packets):  # an open file cannot be replaced on Windows
        for packet in packets:
            if position >= samples:
                return
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = position
            packet.duration = min(AudioEncoder.FRAME, samples - position)
            yield packet
            position += AudioEncoder.FRAME


def assemble(
    target: Path,
    sources: Sequence[Path],
    fps: Fraction,
    frames: int,
    metadata: Mapping[str, str],
    sound: Callable[[av.container.OutputContainer], Iterator[av.Packet]] | None = None,
) -> None:
    """Stream-copy the pictures of `sources`, one after another, to a plain mp4 of `frames` / fps seconds.

    `sound` adds its stream to the output and yields the timed packets. `target` appears complete or not at all.
    Raises OSError or av.FFmpegError.
    """
    with replacing(target) as unfinished:
        with av.open(libav_url(sources[0])) as first, closing(open_output(unfinished, plain(fps), metadata)) as output:
            video = output.add_stream_from_template(first.streams.video[0], opaque=True)
            packets = (packet for path in sources for packet in copied_packets(path, "video"))
            tracks = [timed_video(packets, video, fps)]
            if sound is not None:
                tracks.append(sound(output))
            # Merged by time, so that one packet of each is held and players need not seek.
            for packet in heapq.merge(*tracks, key=lambda packet: packet.dts * packet.time_base):
                output.mux(packet)
        with av.open(libav_url(unfinished)) as written:
            found = written.streams.video[0].frames
        if found != frames:
            raise OSError(f"{found} frames could be read back of {frames}")


def copied_sound(growing: Path, output: av.container.OutputContainer, rate: int, samples: int) -> Iterator[av.Packet]:
    """The sound of a growing file, timed exactly, for `assemble`."""
    with av.open(libav_url(growing)) as source:
        stream = output.add_stream_from_template(source.streams.audio[0], opaque=True)
        stream.codec_context.bit_rate = 0  # as for write_btrt: libavformat then computes the true one
    return timed_audio(copied_packets(growing, "audio"), stream, rate, samples)


def trim_to_whole_fragments(path: Path) -> None:
    """Cut a growing file after its last complete fragment; a full disk leaves a partial one."""
    with open(path, "r+b") as file:
        end, size = 0, file.seek(0, os.SEEK_END)
        position = 0
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))  # ISO/IEC 14496-12: every box starts like this
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or position + length > size:
                break
            position += length
            if kind in (b"moov", b"mdat"):
                end = position
        file.truncate(end)
