"""Does a block cost the same at the start and after 2,000 of them? Seconds per block, and memory over the whole run.

Runs the embedded avatar on a generated voice; every window of blocks spans whole reset cycles, so that all windows hold
the same mix of work. Memory is the resident set as the system reports it (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from joyavatar_core.audio import AudioSource
from joyavatar_core.avatar import load_avatar
from joyavatar_core.sampling.presets import preset
from joyavatar_core.talk import frames_of

RATE = 16000


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
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--window", type=int, default=16, help="blocks in a median; a multiple of the reset cycle, 4")
    parser.add_argument("--decode", action="store_true", help="decode the video too (slower)")
    args = parser.parse_args()

    avatar = load_avatar()
    settings = preset("joyavatar", avatar.config)
    frames_per_block = 4 * avatar.config.block_frames
    voice = Murmur((args.blocks + 1) * frames_per_block / avatar.config.fps)
    picture = np.full((128, 128, 3), 128, np.uint8)
    stream = replace(avatar.stream(picture, voice, settings), frames=args.blocks * frames_per_block)

    marks = [mark for mark in (20, 200, 2000) if mark <= args.blocks]
    seconds, resident = [], {}
    run = iter(stream)
    blocks = (block for block, _ in frames_of(run, avatar.decoder)) if args.decode else run
    for block in blocks:
        seconds.append(block.seconds)
        if block.index + 1 in marks:
            resident[block.index + 1] = resident_bytes()
        if len(seconds) == args.blocks:
            break
    print(f"{torch.get_num_threads()} threads, decoding {'on' if args.decode else 'off'}\n")
    print("| blocks so far | s per block (median) | ratio | resident, MB | growth, MB |\n|---|---|---|---|---|")
    first = None
    for mark in marks:
        median = statistics.median(seconds[mark - args.window : mark])
        first = first or median
        growth = (resident[mark] - resident[marks[0]]) / 1e6
        print(f"| {mark} | {median:.4f} | {median / first:.3f} | {resident[mark] / 1e6:.0f} | {growth:+.1f} |")


if __name__ == "__main__":
    main()
