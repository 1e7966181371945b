"""Does a block cost the same at the start and after 2,000 of them? Seconds per block, and memory over the whole run.

Runs the embedded avatar on a generated voice. At each mark a second run of the same stream is begun, and cycles of the
old and the young one (from its block 16 on) are timed in turn, so that a machine that slows down does not count. A
cycle is 4 blocks, whole turns from reset to reset. Memory is the resident set as the system reports it (Linux).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from joyavatar_core.audio import AudioSource
from joyavatar_core.geometry import VIDEO_FRAMES_PER_LATENT
from joyavatar_core.pipeline.avatar import Avatar, load_avatar
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream

RATE = 16000
CYCLE = 4


class Murmur(AudioSource):
    """An endless voice-like sound that is computed where it is read and costs no memory."""

    channels, num_samples = 1, None

    def __init__(self, seconds: float) -> None:
        super().__init__(RATE)
        self.num_samples = round(seconds * RATE)

    def _window(self, start: int, stop: int) -> np.ndarray:
        t = np.arange(start, min(stop, self.num_samples)) / RATE
        syllables = np.maximum(0, np.sin(2 * np.pi * 3.1 * t)) * (1 + np.sin(2 * np.pi * 0.21 * t)) / 2
        return (0.3 * syllables * np.sin(2 * np.pi * 140 * t)).astype(np.float32)[:, None]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--cycles", type=int, default=9, help="reset cycles that are compared at each mark")
    parser.add_argument("--decode", action="store_true", help="decode the video too (slower)")
    args = parser.parse_args()

    avatar = load_avatar()
    settings = preset("joyavatar", avatar.config)
    frames_per_block = VIDEO_FRAMES_PER_LATENT * avatar.config.block_frames
    voice = Murmur((args.blocks + 100) * frames_per_block / avatar.config.fps)
    picture = np.full((128, 128, 3), 128, np.uint8)
    stream = replace(avatar.stream(picture, voice, settings), video_frames=(args.blocks + 100) * frames_per_block)

    marks = [mark for mark in (200, 2000) if mark <= args.blocks]
    run = timed(stream, avatar, args.decode)
    done, before = 0, None
    print(f"{torch.get_num_threads()} threads, decoding {'on' if args.decode else 'off'}\n")
    print("| blocks so far | s per block | the same at block 20 | ratio | resident, MB | since block 20 |")
    print("|---|---|---|---|---|---|")
    for mark in marks:
        done += sum(1 for _ in itertools.islice(run, max(0, 20 - done)))
        before = before or resident_bytes()
        done += sum(1 for _ in itertools.islice(run, mark - done))
        grown = resident_bytes()
        young = timed(stream, avatar, args.decode)
        list(itertools.islice(young, 16))
        old_seconds, young_seconds = [], []
        for _ in range(args.cycles):
            old_seconds.append(sum(itertools.islice(run, CYCLE)) / CYCLE)
            young_seconds.append(sum(itertools.islice(young, CYCLE)) / CYCLE)
        done += CYCLE * args.cycles
        old, new = statistics.median(old_seconds), statistics.median(young_seconds)
        print(
            f"| {mark} | {old:.4f} | {new:.4f} | {old / new:.3f} | {grown / 1e6:.0f} | {(grown - before) / 1e6:+.1f} |"
        )


def timed(stream: AvatarStream, avatar: Avatar, decode: bool) -> Iterator[float]:
    """Seconds of each block of a new run."""
    run = StreamRun(stream)
    for block in (block for block, _ in frames_of(run, avatar.decoder)) if decode else run:
        yield block.seconds


if __name__ == "__main__":
    main()
