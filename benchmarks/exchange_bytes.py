"""What the processes of one stream send each other in a block, by arithmetic, and how long that takes on a link.

    python benchmarks/exchange_bytes.py [--ranks 2 4 6 12] [--size 512x512 832x480 1280x720]

Prints a Markdown table for the public 1.3B shapes in bfloat16. tests/test_distributed_streams.py counts the bytes of
real passes against `sent_bytes`. Nothing is timed: link speeds are what their makers publish, for one direction.
"""

from __future__ import annotations

import argparse

from joyavatar_core.cli.parser import parse_size
from joyavatar_core.config import AvatarConfig
from joyavatar_core.geometry import to_latent_size, tokens_per_frame

LINKS = {"NVLink 4": 450e9, "PCIe 5.0 x16": 63e9, "PCIe 4.0 x16": 31.5e9}  # bytes a second
STEPS = 4


def sent_bytes(config: AvatarConfig, tokens: int, ranks: int, steps: int, injected: int, itemsize: int) -> int:
    """Bytes that all ranks together send to others for a block of a stream that has begun.

    tokens: of a latent frame; a multiple of `ranks`. steps: denoising passes; the cache update is one more pass, and
    MCI's `injected` frames take another. A layer exchanges queries, keys and values, and then its result; the last
    layer of a pass that only fills the cache exchanges keys and values alone. A denoising pass gathers the flow.
    """
    width = tokens * config.dim * itemsize  # one of q, k, v or the result, of a frame, in all ranks together
    frames, layers = config.block_frames, config.num_layers
    exchanged = steps * frames * layers * 4 * width + (frames + injected) * (layers * 4 - 2) * width
    gathered = steps * frames * tokens * 4 * config.out_channels * itemsize * (ranks - 1)
    return exchanged * (ranks - 1) // ranks + gathered


def exchanges(config: AvatarConfig, steps: int, injected: int) -> int:
    """How often in a block all ranks wait for one another."""
    filling = 1 + bool(injected)
    return steps * (2 * config.num_layers + 1) + filling * (2 * config.num_layers - 1)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 6, 12])
    parser.add_argument("--size", type=parse_size, nargs="+", default=[(512, 512), (832, 480), (1280, 720)])
    args = parser.parse_args(arguments)
    config = AvatarConfig()
    print("| picture | ranks | GB in all | GB each rank sends |", *(f"ms on {link} |" for link in LINKS))
    print("|---|---" + "|---" * (2 + len(LINKS)) + "|")
    for width, height in args.size:
        tokens = tokens_per_frame(to_latent_size((width, height)))
        for ranks in args.ranks:
            total = sent_bytes(config, tokens, ranks, STEPS, 0, 2)
            times = (f"{1000 * total / ranks / speed:.1f} |" for speed in LINKS.values())
            print(f"| {width} × {height} | {ranks} | {total / 1e9:.2f} | {total / ranks / 1e9:.2f} |", *times)
    print(f"\n{exchanges(config, STEPS, 0)} exchanges a block, {exchanges(config, STEPS, 3)} with MCI's frames.")


if __name__ == "__main__":
    main()
