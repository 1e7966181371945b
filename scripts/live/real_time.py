"""Raw PCM of a voice on standard output, at the speed at which it would be spoken: a stand-in for a microphone.

    python scripts/live/real_time.py voice.flac | python -m joyavatar_core live --audio - --portrait P --serve 8090
    python scripts/live/real_time.py --synthetic 600 | ...

The samples are s16le, mono, 16 kHz. A file is repeated until --seconds are over; --speed 4 speaks four times as fast.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np

RATE = 16000
PORTION = RATE // 20  # samples written at once


def synthetic(seconds: float) -> Iterator[np.ndarray]:
    """A buzz with the rhythm of syllables, for ever different, float [PORTION] at a time."""
    for start in range(0, round(seconds * RATE), PORTION):
        t = np.arange(start, min(start + PORTION, round(seconds * RATE))) / RATE
        pitch = 2 * np.pi * (140 * t + 3 * np.sin(2 * np.pi * 0.7 * t))
        yield 0.25 * np.sin(pitch) * (1 + np.sin(2 * np.pi * 4.3 * t)) * (np.sin(2 * np.pi * 0.31 * t) > -0.7)


def recorded(path: str, seconds: float | None) -> Iterator[np.ndarray]:
    """A file's voice, again and again until the time is over."""
    from joyavatar_core.audio import ArrayAudio, FileAudio
    from joyavatar_core.audio.resample import read_resampled

    voice = FileAudio(path)
    length = -(-voice.num_samples * RATE // voice.sample_rate)
    whole = ArrayAudio(read_resampled(voice, 0, length, RATE), RATE)
    left = length if seconds is None else round(seconds * RATE)
    position = 0
    while left > 0:
        count = min(PORTION, left, length - position)
        yield whole.read(position, position + count)
        position, left = (position + count) % length, left - count


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", nargs="?", help="any sound file")
    arguments.add_argument("--synthetic", type=float, metavar="SECONDS", help="no file: a made-up voice")
    arguments.add_argument("--seconds", type=float, help="in all; default: the file once")
    arguments.add_argument("--speed", type=float, default=1.0)
    args = arguments.parse_args()
    if (args.file is None) == (args.synthetic is None):
        arguments.error("give a file or --synthetic")
    portions = recorded(args.file, args.seconds) if args.file else synthetic(args.synthetic)
    started, sent = time.monotonic(), 0
    try:
        for portion in portions:
            sys.stdout.buffer.write((portion * 32767).clip(-32768, 32767).astype("<i2").tobytes())
            sys.stdout.buffer.flush()
            sent += len(portion)
            time.sleep(max(0.0, started + sent / RATE / args.speed - time.monotonic()))
    except (BrokenPipeError, KeyboardInterrupt):
        sys.stderr.write("stopped\n")
    print(f"{sent} samples in {time.monotonic() - started:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
