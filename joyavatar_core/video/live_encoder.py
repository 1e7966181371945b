"""Video that is watched while it is made: each block becomes bytes of fragmented mp4 or MPEG-TS at once."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.video.frame import PictureType

from ..errors import AvatarError
from .audio import AudioEncoder
from .containers import marked, saying
from .h264 import YuvConverter, add_h264, check_quality, checked_frames, chosen_encoder

if TYPE_CHECKING:
    from av.container import OutputContainer

MP4, TS = "mp4", "mpegts"
FORMATS = (MP4, TS)
# Each block is a fragment of its own, whole at once, written by a muxer of its own that is told to keep the clock.
FRAGMENT = {
    "movflags": "+empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer+use_metadata_tags",
    "avoid_negative_ts": "disabled",  # by default each muxer would begin at 0
    "use_editlist": "0",
}
# The tables again before each key frame, so that a viewer can join there; no artificial delay.
TRANSPORT = {"mpegts_flags": "+pat_pmt_at_frames", "muxdelay": "0", "muxpreload": "0", "max_interleave_delta": "1"}
AT_ONCE = {"flush_packets": "1", "fflags": "+bitexact"}
TS_PACKET, TS_VIDEO = 188, 0x100  # bytes; the first stream's number in libavformat's muxer
TICK = Fraction(1, 90_000)  # s; MPEG's clock
X264 = {"preset": "veryfast", "tune": "zerolatency", "bf": "0", "forced-idr": "1", "sc_threshold": "0", "threads": "1"}

BROKEN = "The live stream cannot go on", "start it again"  # for `saying`


class _Collected(io.RawIOBase):
    """Where a muxer writes to: bytes until they are taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


class LiveEncoder:
    """Encodes blocks of frames and sound once, for one container or both; every block begins with a key frame.

    Life cycle: made, `encode` block after block, `finish`; or `close` at any time. `heads` are the bytes that a viewer
    needs first, whenever it joins: mp4's header, nothing for MPEG-TS. Any block's bytes can follow it (in MPEG-TS
    `from_key_frame` on), then those of all later blocks.

    Args:
        width, height: pixels, even. fps: frames per second. sample_rate: Hz of the sound, None for silence.
        channels: 1 or 2. crf: 1 (best) ... 51. formats: "mp4" (fragmented), "mpegts". metadata: tags, as VideoWriter's.
    Raises AvatarError for values that cannot be, frames and sound of another shape, and NaN sound.
    """

    def __init__(
        self,
        width: int,
        height: int,
        fps: int | Fraction,
        sample_rate: int | None = None,
        channels: int = 1,
        *,
        crf: int = 20,
        formats: Iterable[str] = (MP4,),
        metadata: Mapping[str, object] | None = None,
        encoder: str = "x264",
    ) -> None:
        self.formats = tuple(dict.fromkeys(formats))
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise AvatarError(f"The live format is {unknown or 'missing'}, expected {' or '.join(FORMATS)}.")
        check_quality(crf)
        encoder = chosen_encoder(encoder, width, height)
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.frames = 0  # encoded so far
        self._fragments = 0
        self._metadata = marked(metadata)
        self._to_yuv = YuvConverter()
        self._out = _Collected()
        self._transport_out = _Collected()
        self._transport = None
        with saying("The live stream cannot be started", "check its size and sound"):
            # This container has the encoders and writes nothing but the head.
            self._encoders = self._open(self._out, MP4, FRAGMENT)
            options = {**X264, "crf": str(crf), "g": str(max(1, round(2 * self.fps)))}
            self._video = add_h264(self._encoders, width, height, self.fps, options, encoder)
            self._audio = None if sample_rate is None else AudioEncoder(self._encoders, sample_rate, channels)
            self._encoders.start_encoding()
            head = self._out.take()
            if TS in self.formats:
                self._transport = self._open(self._transport_out, TS, TRANSPORT)
                self._copies = self._copy_streams(self._transport)
                self._transport.start_encoding()
        # AAC encoders add samples at the start; the video begins after them, so that no time is below 0.
        self._delay = Fraction(0) if self._audio is None else Fraction(AudioEncoder.PRIMING, self._audio.rate)
        self._sound_packets = 0
        self.heads = {name: head if name == MP4 else b"" for name in self.formats}

    def encode(self, frames: Any, samples: Any | None = None) -> dict[str, bytes]:
        """The next block: uint8 [N, H, W, 3] and its sound, float [S] or [S, C] -> new bytes of each format."""
        packets = []
        with saying(*BROKEN):
            for index, picture in enumerate(checked_frames(frames, self.width, self.height)):
                frame = self._to_yuv(picture)
                frame.pts, frame.time_base = self.frames, 1 / self.fps
                if index == 0:
                    frame.pict_type = PictureType.I
                packets += map(self._time_picture, self._video.encode(frame))
                self.frames += 1
            if samples is not None and self._audio is not None:
                packets += map(self._time_sound, self._audio.encode(samples))
            return self._mux(packets)

    def finish(self) -> dict[str, bytes]:
        """The last bytes: what the encoders still hold."""
        with saying(*BROKEN):
            packets = list(map(self._time_picture, self._video.encode(None))) if self.frames else []
            if self._audio is not None and self._audio.given:
                packets += map(self._time_sound, self._audio.flush())
            data = self._mux(packets)
        self.close()
        if self._transport is not None:
            data[TS] += self._transport_out.take()
        return data

    def close(self) -> None:
        """Free the encoders; nothing more can be encoded."""
        for container in (self._encoders, self._transport):
            if container is not None:
                container.close()

    def _open(self, out: _Collected, name: str, layout: Mapping[str, str]) -> OutputContainer:
        container = av.open(out, "w", format=name, container_options={**layout, **AT_ONCE})
        container.metadata.update(self._metadata)
        return container

    def _copy_streams(self, container: OutputContainer) -> list[av.stream.Stream]:
        return [container.add_stream_from_template(stream, opaque=True) for stream in self._encoders.streams]

    def _time_picture(self, packet: av.Packet) -> av.Packet:
        start = packet.pts * packet.time_base + self._delay
        return _timed(packet, start, 1 / self.fps)

    def _time_sound(self, packet: av.Packet) -> av.Packet:
        length = Fraction(AudioEncoder.FRAME, self._audio.rate)
        self._sound_packets += 1
        return _timed(packet, (self._sound_packets - 1) * length, length)

    def _mux(self, packets: list[av.Packet]) -> dict[str, bytes]:
        packets.sort(key=lambda packet: packet.dts)
        indices = [packet.stream.index for packet in packets]
        data = {}
        if MP4 in self.formats:
            data[MP4] = self._fragment(packets, indices)
        if TS in self.formats:
            _mux_as(packets, indices, self._transport, self._copies)
            data[TS] = self._transport_out.take()
        return data

    def _fragment(self, packets: list[av.Packet], indices: list[int]) -> bytes:
        """These packets as one fragment: a box with their times and a box with their bytes."""
        if not packets:
            return b""
        self._fragments += 1
        layout = {**FRAGMENT, "fragment_index": str(self._fragments)}
        with closing(self._open(self._out, MP4, layout)) as container:
            copies = self._copy_streams(container)
            container.start_encoding()
            self._out.take()  # the same head again
            _mux_as(packets, indices, container, copies)
        return self._out.take()


def from_key_frame(data: bytes) -> bytes:
    """A block's MPEG-TS from the tables of its key frame on: the last packets of the block before it come first."""
    tables = 0
    for at in range(0, len(data) - TS_PACKET + 1, TS_PACKET):  # ISO/IEC 13818-1, 2.4.3
        pid = int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF
        if pid == 0:
            tables = at
        adapted = data[at + 3] & 0x20 and data[at + 4]
        if pid == TS_VIDEO and adapted and data[at + 5] & 0x40:  # a random access point
            return data[tables:]
    return data


def _timed(packet: av.Packet, start: Fraction, length: Fraction) -> av.Packet:
    packet.time_base = TICK
    packet.pts = packet.dts = round(start / TICK)
    packet.duration = round((start + length) / TICK) - packet.pts
    return packet


def _mux_as(packets: list[av.Packet], indices: list[int], container: OutputContainer, streams: list) -> None:
    for packet, index in zip(packets, indices, strict=True):
        packet.stream = streams[index]
        container.mux_one(packet)
