"""One way to any voice a command is given: a file's name, or ``-`` for raw PCM on standard input."""

from __future__ import annotations

import os
import sys

from ..errors import AvatarError
from ..paths import existing_file
from .pcm import read_pcm
from .source import AudioSource

STDIN = "-"


def open_voice(
    spec: str | os.PathLike[str], sample_rate: int = 16000, channels: int = 1, sample_format: str = "s16le"
) -> AudioSource:
    """The voice in a file, or growing from standard input where `spec` is ``-``.

    sample_rate (Hz), channels and sample_format (s16le, f32le) describe the PCM; a file contains its own.
    Raises AvatarError for what cannot be read.
    """
    if spec != STDIN:
        from .file import FileAudio

        return FileAudio(existing_file(spec))
    if sys.stdin is None or sys.stdin.isatty():
        raise AvatarError(
            "The voice is to come from standard input, which is a terminal; pipe raw PCM in, for example "
            f"ffmpeg -i voice.mp3 -f {sample_format} -ar {sample_rate} -ac {channels} - | joyavatar ..."
        )
    # Unbuffered: a thread that waits in a buffered standard input would stop Python from ending.
    raw = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return read_pcm(raw, sample_rate, channels, sample_format)
