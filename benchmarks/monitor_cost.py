"""What the drift monitor costs: milliseconds a block, beside the block it measures.

    python benchmarks/monitor_cost.py [--size 128x128] [--blocks 20]

Prints the monitor's time for random frames of several sizes, then its share of a block of the embedded avatar.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.cli.parser import parse_size
from joyavatar_core.monitoring.drift_monitor import DriftMonitor
from joyavatar_core.monitoring.measures import frame_loudness
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun


def monitor_seconds(width: int, height: int, blocks: int = 20) -> float:
    """The least time over some blocks of 12 frames, in seconds."""
    rng = np.random.default_rng(0)
    voice = ArrayAudio(rng.standard_normal(16000 * 30) * 0.1, 16000)
    frames = rng.integers(0, 256, (12, height, width, 3), np.uint8)
    monitor, least = DriftMonitor(16), float("inf")
    for block in range(blocks):
        started = time.perf_counter()
        monitor.update(block, frames, frame_loudness(voice, 16, range(block * 12, block * 12 + 12)))
        least = min(least, time.perf_counter() - started)
    return least


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size", type=parse_size, default=(128, 128))
    arguments.add_argument("--blocks", type=int, default=20)
    args = arguments.parse_args()
    for side in (32, 64, 128, 256, 512, 1024):
        print(f"{side:5} x {side:<5} {1e3 * monitor_seconds(side, side):7.2f} ms a block")
    avatar = load_avatar()
    portrait = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    voice = ArrayAudio(np.random.default_rng(2).standard_normal(16000 * args.blocks) * 0.1, 16000)
    stream = avatar.stream(portrait, voice, preset("checkpoint", avatar.config), pixel_size=args.size)
    seconds, started = [], time.perf_counter()
    for block, _ in frames_of(StreamRun(stream), avatar.decoder):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        if block.index + 1 == args.blocks:
            break
    block_seconds = float(np.median(seconds[5:] or seconds))
    cost = monitor_seconds(*args.size)
    print(
        f"a block of {args.size[0]}x{args.size[1]} takes {block_seconds:.3f} s, the monitor {cost / block_seconds:.2%}"
    )


if __name__ == "__main__":
    main()
