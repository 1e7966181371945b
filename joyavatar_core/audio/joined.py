"""Concatenated audio files: where each begins, and a part of a file as a file object."""

from __future__ import annotations

import io
import os
from pathlib import Path

SCAN_BYTES = 1 << 18
# What a file begins with. MP3, AAC and AC-3 need none of this: their decoders take up a new format at any packet.
FLAC = b"fLaC\x00\x00\x00\x22"  # with a STREAMINFO block of 34 bytes, RFC 9639
OGG_PAGE, OGG_FIRST = b"OggS\x00", 0x02  # RFC 3533


def parts_of(path: Path) -> list[tuple[int, int]]:
    """Byte ranges [start, stop) of the files that were concatenated; one range for a single file.

    Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        starts = [0]
        if head.startswith(OGG_PAGE):
            starts = _ogg_links(file, size)
        elif head.startswith(FLAC):
            starts = _find_all(file, FLAC)
        elif head.startswith(b"RIFF"):
            starts = _riff_files(file, size)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _riff_files(file: io.BufferedReader, size: int) -> list[int]:
    """Where WAV files begin, by the length in the header of each."""
    starts, position = [], 0
    while position + 16 <= size:
        file.seek(position)
        head = file.read(16)
        if not (head.startswith(b"RIFF") and head[8:].startswith(b"WAVEfmt ")):
            break
        starts.append(position)
        position += 8 + int.from_bytes(head[4:8], "little")
    return starts or [0]


def _find_all(file: io.BufferedReader, magic: bytes) -> list[int]:
    """Every place of `magic`, the file read once in windows."""
    found, position, tail = [], 0, b""
    file.seek(0)
    while chunk := file.read(SCAN_BYTES):
        window = tail + chunk
        at = window.find(magic)
        while at >= 0:
            found.append(position - len(tail) + at)
            at = window.find(magic, at + 1)
        position += len(chunk)
        tail = window[-(len(magic) - 1) :]
    return found


def _ogg_links(file: io.BufferedReader, size: int) -> list[int]:
    """Where the links of an Ogg chain begin: a first page that follows a page which is none."""
    starts, position, before_was_first = [0], 0, True
    while position + 27 <= size:
        file.seek(position)
        page = file.read(27)
        if not page.startswith(OGG_PAGE):
            break  # damage, or something else behind it: the demuxer finds its own way
        first = bool(page[5] & OGG_FIRST)
        if first and not before_was_first:
            starts.append(position)
        before_was_first = first
        position += 27 + page[26] + sum(file.read(page[26]))
    return starts


class PartOfFile(io.RawIOBase):
    """Bytes [start, stop) of a file, to be read as a file of their own."""

    def __init__(self, path: str | os.PathLike[str], start: int, stop: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._start, self._size, self._position = start, stop - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        self._file.seek(self._start + self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
