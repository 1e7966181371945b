"""What refining costs: seconds a block at several sizes, beside sampling and decoding the block.

    python benchmarks/refiner_cost.py [--blocks 12] [--float32]

Blocks are sampled, decoded and refined at every size in turn, in one process; medians, the first blocks left out. A
refined face needs no decoding.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import torch

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.pipeline.avatar import EMBEDDED_AVATAR, load_avatar
from joyavatar_core.pipeline.embedded import ASSETS
from joyavatar_core.refiner import portrait_refiner
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun

WARM = 5  # blocks


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=12)
    arguments.add_argument("--float32", action="store_true", help="as on processors without AMX and AVX512-BF16")
    args = arguments.parse_args()
    blocks = WARM + args.blocks
    if args.float32:
        portrait_refiner.quick_dtype = lambda device: None
    options = dataclasses.replace(EMBEDDED_AVATAR, dtype=torch.float32) if args.float32 else EMBEDDED_AVATAR
    avatar, random = load_avatar(options), np.random.default_rng(0)
    voice = ArrayAudio(random.standard_normal(16000 * blocks) * 0.1, 16000)
    stream = avatar.stream(ASSETS / "portraits" / "ada.png", voice, preset("checkpoint", avatar.config))
    side, seconds = avatar.config.width, {"sampling": [], "decoding": []}
    refiners = {f"refining to {times * side} pixels": avatar.refine(stream, times * side) for times in (1, 2, 4, 8)}
    cache = avatar.decoder.new_cache()
    run = StreamRun(stream)
    for _ in range(blocks):
        started = time.perf_counter()
        block = next(run)
        sampled = time.perf_counter()
        video = avatar.decoder.decode(block.latents, cache)[0]
        seconds["sampling"].append(sampled - started)
        seconds["decoding"].append(time.perf_counter() - sampled)
        for name, refine in refiners.items():
            started = time.perf_counter()
            refine.block(block)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    run.close()
    print(f"in {portrait_refiner.quick_dtype('cpu') or 'float32'}")
    for name, values in seconds.items():
        print(f"{name:28} {float(np.median(values[WARM:])):.3f} s a block of {video.shape[1]} frames")


if __name__ == "__main__":
    main()
