"""What x264 takes to encode a stream, and what the viewers' network takes.

    make demo && python benchmarks/encode_cost.py out/demo.mp4 [--size 512x512 832x480] [--repeats 3]

Resizes the first frames of a video and writes them block by block, as `speak` does. Prints processor seconds a frame,
median of the repeats, their share of real time on one core, and the bit rate, as a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from joyavatar_core.cli.parser import parse_size
from joyavatar_core.video import VideoWriter

FRAMES, BLOCK, FPS, CRF = 96, 12, 16, 18


def resized_frames(path: str, size: tuple[int, int]) -> Tensor:
    """The first frames of a video, uint8 [N, height, width, 3]."""
    with av.open(path) as file:
        pictures = [frame.to_image() for frame, _ in zip(file.decode(video=0), range(FRAMES), strict=False)]
    return torch.from_numpy(np.stack([np.asarray(picture.resize(size, Image.BICUBIC)) for picture in pictures]))


def encode(frames: Tensor, path: Path) -> float:
    """Write frames; returns processor seconds a frame."""
    started = time.process_time()
    with VideoWriter(path, frames.shape[2], frames.shape[1], FPS, None, 1, crf=CRF) as writer:
        for block in frames.split(BLOCK):
            writer.write(block)
    return (time.process_time() - started) / len(frames)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video")
    parser.add_argument("--size", type=parse_size, nargs="+", default=[(512, 512), (832, 480)])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("| picture | processor ms a frame | share of a core in real time | Mbit/s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        for size in args.size:
            frames = resized_frames(args.video, size)
            seconds = median(encode(frames, path) for _ in range(args.repeats))
            rate = path.stat().st_size * 8 / (len(frames) / FPS) / 1e6
            print(f"| {size[0]} × {size[1]} | {1000 * seconds:.1f} | {seconds * FPS:.0%} | {rate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
