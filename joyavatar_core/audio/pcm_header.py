"""A pipe of raw samples that begins as a file: a WAV's header is taken off, other files are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import AvatarError

UNKNOWN = 0x7FFFF000  # a size of samples from here on, or 0, stands for "until the end" in a WAV that is streamed
LONGEST = 1 << 16  # bytes of header; more is no header
# What other files that hold sound begin with, and where.
FILES = {
    "Ogg": (b"OggS", 0), "FLAC": (b"fLaC", 0), "MP3": (b"ID3", 0), "Matroska": (b"\x1aE\xdf\xa3", 0),
    "MP4": (b"ftyp", 4), "AIFF": (b"FORM", 0), "AU": (b".snd", 0),
}  # fmt: skip
WAV_FORMATS = {(1, 16): "s16le", (3, 32): "f32le"}  # (wFormatTag, bits) of what is read
EXTENSIBLE = 0xFFFE  # the tag is then the sub-format's first two bytes


def after_header(
    read: Callable[[int], bytes], sample_rate: int, channels: int, sample_format: str
) -> tuple[bytes, float]:
    """What a stream begins with, after a WAV header if there is one.

    Returns (first bytes of the samples, b"" at the stream's end; bytes of all samples, infinity where unknown). In a
    WAV other chunks may follow the samples.

    read: gives the next bytes, at most as many as asked for. Raises AvatarError for a WAV of another format than said,
    and for what is another kind of file.
    """
    head = _grown(b"", read, 12)
    for kind, (magic, at) in FILES.items():
        if head[at:].startswith(magic):
            raise AvatarError(
                f"Standard input is a file ({kind}), expected raw PCM; decode it: "
                f"ffmpeg -i FILE -f {sample_format} -ar {sample_rate} -ac {channels} - | joyavatar ..."
            )
    if not (head.startswith(b"RIFF") and head[8:12] == b"WAVE"):
        return head, math.inf
    at = 12
    while at < LONGEST:
        head = _grown(head, read, at + 8)
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"data" or len(head) < at + 8:
            return head[at + 8 :], size if 0 < size < UNKNOWN else math.inf
        head = _grown(head, read, at + 8 + min(size, LONGEST))
        if name == b"fmt ":
            _check_format(head[at + 8 : at + 8 + size], sample_rate, channels, sample_format)
        at += 8 + size + size % 2
    raise AvatarError("Standard input begins as a WAV file and holds no samples; pipe raw PCM in.")


def _grown(head: bytes, read: Callable[[int], bytes], size: int) -> bytes:
    """`head` and as much more as makes it `size` bytes, less only where the stream ends."""
    while len(head) < size and (more := read(size - len(head))):
        head += more
    return head


def _check_format(chunk: bytes, sample_rate: int, channels: int, sample_format: str) -> None:
    tag, found_channels = int.from_bytes(chunk[0:2], "little"), int.from_bytes(chunk[2:4], "little")
    rate, bits = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[14:16], "little")
    tag = int.from_bytes(chunk[24:26], "little") if tag == EXTENSIBLE else tag
    found = (rate, found_channels, WAV_FORMATS.get((tag, bits), f"{bits} bits, format {tag}"))
    if found != (sample_rate, channels, sample_format):
        raise AvatarError(
            f"Standard input is a WAV file of {found[0]} Hz, {found[1]} channels, {found[2]}, expected {sample_rate} "
            f"Hz, {channels} channels, {sample_format}; give the file's own values.",
            "audio_rate",
            "audio_channels",
            "audio_format",
        )
