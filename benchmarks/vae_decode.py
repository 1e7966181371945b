"""Seconds per block of the VAE's decoder: stacked conv2d against plain conv3d of the same weights, and bfloat16.

    python -m benchmarks.vae_decode --dims 8 16 32 --sizes 128 --threads 1 2

Prints a markdown table. A block is 3 latent frames = 12 video frames of a running stream. The variants of a row take
turns in the same process, so that their ratios survive a busy machine; the seconds may not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from joyavatar_core.geometry import LATENT_CHANNELS, VIDEO_FRAMES_PER_LATENT, to_latent_size
from joyavatar_core.vae import StreamingVAE, conv, random_weights_vae

BLOCK = 3  # latent frames
FRAMES = VIDEO_FRAMES_PER_LATENT * BLOCK


def conv3d_form(layer: nn.Conv3d, line: Tensor) -> Tensor:
    """What `causal_conv` computes, as the public implementations do: one conv3d on [B, C, T, H, W]."""
    margin = layer.kernel_size[-1] // 2
    video = F.pad(line.permute(0, 4, 1, 2, 3), (margin,) * 4).contiguous()
    result = F.conv3d(video, layer.weight.contiguous(), layer.bias, layer.stride)
    return result.permute(0, 2, 3, 4, 1).contiguous()


def block_decoder(vae: StreamingVAE, latents: Tensor, form: Callable | None = None) -> Callable[[], float]:
    """A function that decodes one more block of a running stream and returns the seconds it took."""
    cache = vae.new_cache()
    vae.decode(latents, cache)  # a stream's first block is shorter

    def decode() -> float:
        start = time.perf_counter()
        if form is None:
            vae.decode(latents, cache)
        else:
            with patch.object(conv, "causal_conv", form):
                vae.decode(latents, cache)
        return time.perf_counter() - start

    return decode


def measure(dim: int, size: int, runs: int) -> dict[str, float]:
    """Median seconds per block of each variant, and the true work in GFLOP (a multiply-add is two)."""
    vae, half = random_weights_vae(dim), random_weights_vae(dim).bfloat16()
    latents = torch.randn(1, LATENT_CHANNELS, BLOCK, *to_latent_size((size, size)))
    decoders = {
        "conv2d": block_decoder(vae, latents),
        "bf16": block_decoder(half, latents),
        "conv3d": block_decoder(vae, latents, conv3d_form),
    }
    for decode in decoders.values():  # warm up
        decode()
    with FlopCounterMode(display=False) as counter:
        decoders["conv3d"]()
    seconds = {name: [] for name in decoders}
    for run in range(runs):
        for name, decode in decoders.items():
            if name != "conv3d" or run < max(3, runs // 3):
                seconds[name].append(decode())
    return {name: statistics.median(values) for name, values in seconds.items()} | {
        "gflop": counter.get_total_flops() / 1e9
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 16, 32], help="base widths")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128], help="picture sizes in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=9, help="timed blocks per variant (conv3d: a third, at least 3)")
    args = parser.parse_args()

    print(f"torch {torch.__version__}, medians of {args.runs} blocks of {BLOCK} latents, random weights.\n")
    print(
        "| base width | picture | threads | conv2d s/block | frames/s | GFLOP/s | conv3d s/block | conv3d : conv2d "
        "| bf16 s/block | fp32 : bf16 |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with torch.no_grad():
        for size in args.sizes:
            for dim in args.dims:
                for threads in args.threads:
                    torch.set_num_threads(threads)
                    m = measure(dim, size, args.runs)
                    print(
                        f"| {dim} | {size} | {threads} | {m['conv2d']:.3f} | {FRAMES / m['conv2d']:.1f} "
                        f"| {m['gflop'] / m['conv2d']:.0f} | {m['conv3d']:.3f} | {m['conv3d'] / m['conv2d']:.1f} "
                        f"| {m['bf16']:.3f} | {m['conv2d'] / m['bf16']:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
