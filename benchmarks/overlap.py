"""What it gains to sample, decode, refine and write at the same time: frames/s, against one stage after the other.

    python benchmarks/overlap.py [--blocks 24] [--repeats 3] [--threads 1] [--refine on|off|WIDTH]

The embedded avatar's video is written to a file in both ways in turn, refined as `--refine` says. The first blocks of
each video are left out. Medians of the repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.pipeline.avatar import Avatar, load_avatar
from joyavatar_core.pipeline.embedded import ASSETS
from joyavatar_core.pipeline.render import output_pixel_size, output_rate, talk
from joyavatar_core.refiner import FaceMotion
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.video import VideoWriter

WARM = 5  # blocks: the first ones have more steps, and the stages start one after the other


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=24, help="counted in each video")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument(
        "--threads", type=int, default=1, help="of each operation; the stages have their own besides"
    )
    arguments.add_argument("--refine", default="on", help="as in `joyavatar speak`")
    arguments.add_argument("--fps", type=int, help="as in `joyavatar speak`")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    avatar = load_avatar()
    config = avatar.config
    seconds = (WARM + args.blocks + 1) * 4 * config.block_frames / config.fps
    voice = ArrayAudio(np.random.default_rng(0).standard_normal(round(16000 * seconds)) * 0.1, 16000)
    stream = avatar.stream(ASSETS / "portraits" / "ada.png", voice, preset("checkpoint", config))
    found = {False: [], True: []}
    for _ in range(args.repeats):
        for overlap, rates in found.items():
            rates.append(frames_per_second(avatar, stream, voice, args.blocks, overlap, args.refine, args.fps))
    apart, together = (float(np.median(rates)) for rates in found.values())
    spread = ", ".join(f"{low:.1f} ... {high:.1f}" for low, high in ((min(r), max(r)) for r in found.values()))
    print(
        f"one after the other {apart:.1f} frames/s, at the same time {together:.1f} ({spread}): {together / apart:.2f}"
    )


def frames_per_second(
    avatar: Avatar, stream: AvatarStream, voice: ArrayAudio, blocks: int, overlap: bool, setting: str,
    fps: int | None = None,
) -> float:  # fmt: skip
    """Of the `blocks` blocks after the first WARM ones, written to a file."""
    times, frames = [], []

    def on_block(block: object, shown: torch.Tensor) -> None:
        times.append(time.perf_counter())
        frames.append(len(shown))

    refine = avatar.refine(stream, setting, FaceMotion(fps=fps))
    size, rate = output_pixel_size(stream, refine), output_rate(stream, refine)
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "video.mp4", *size, rate.fps, 16000, 1) as writer,
        StreamRun(stream) as run,
    ):
        talk(run, avatar.decoder, writer, voice, on_block, refine=refine, overlap=overlap)
    return sum(frames[WARM : WARM + blocks]) / (times[WARM + blocks - 1] - times[WARM - 1])


if __name__ == "__main__":
    main()
