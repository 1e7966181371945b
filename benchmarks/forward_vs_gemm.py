"""One denoising forward at 1.3B layer shapes against the sum of its bare matrix products and attention calls.

The bare side multiplies the same shapes with the same weights and does nothing else, so the ratio is the cost of
everything around it: norms, rotation, modulation, cache, audio. Both sides run in turn in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from joyavatar_core.config import AvatarConfig
from joyavatar_core.geometry import CELLS_PER_TOKEN, tokens_per_frame
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import AvatarTransformer, SelfContext


def bare(model: AvatarTransformer, tokens: int, seen: int, dtype: torch.dtype):
    """A function that runs only the forward's matrix products and attention, on preallocated inputs."""
    config = model.config
    x = torch.randn(1, tokens, config.dim, dtype=dtype)
    wide = torch.randn(1, tokens, config.ffn_dim, dtype=dtype)
    patches = torch.randn(1, tokens, config.in_channels * CELLS_PER_TOKEN**2, dtype=dtype)
    heads = (1, config.num_heads, -1, config.head_dim)
    q = torch.randn(1, tokens, config.num_heads, config.head_dim, dtype=dtype).transpose(1, 2)
    k, v = (torch.randn(1, seen, config.num_heads, config.head_dim, dtype=dtype).transpose(1, 2) for _ in "kv")
    text = torch.randn(heads[0], config.num_heads, config.text_tokens, config.head_dim, dtype=dtype)

    def run() -> None:
        F.linear(patches, model.patch_embedding.weight.flatten(1))
        for block in model.blocks:
            attn, cross = block.self_attn, block.cross_attn
            for layer in (attn.q, attn.k, attn.v):
                F.linear(x, layer.weight, layer.bias)
            F.scaled_dot_product_attention(q, k, v)
            F.linear(x, attn.o.weight, attn.o.bias)
            F.linear(x, cross.q.weight, cross.q.bias)
            F.scaled_dot_product_attention(q, text, text)
            F.linear(x, cross.o.weight, cross.o.bias)
            F.linear(x, block.ffn[0].weight, block.ffn[0].bias)
            F.linear(wide, block.ffn[2].weight, block.ffn[2].bias)
        F.linear(x, model.head.head.weight, model.head.head.bias)

    return run


@torch.no_grad()
def measure(layers: int, size: int, history: int, dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """Median seconds of (our forward, the bare calls) for latents of size x size."""
    config = AvatarConfig(num_layers=layers)
    model = AvatarTransformer(config, dtype=dtype).eval()
    tokens, frames = tokens_per_frame((size, size)), config.block_frames
    cache = KVCache(layers, 1, history + frames, tokens, config.num_heads, config.head_dim, dtype)
    cache.keys.normal_()
    cache.values.normal_()
    cache.commit(range(history), range(history))
    text = model.encode_text(torch.randn(1, config.text_tokens, config.text_dim, dtype=dtype))
    audio = model.project_audio(torch.randn(1, frames, config.audio_hidden, dtype=dtype))
    context = SelfContext(model.rope(range(history, history + frames), size, size), cache, history)
    latents = torch.randn(1, config.in_channels, frames, size, size, dtype=dtype)
    timesteps = torch.full((1, frames), 936.0)
    sides = {
        "ours": lambda: model(latents, timesteps, text, audio, context),
        "bare": bare(model, frames * tokens, (history + frames) * tokens, dtype),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return statistics.median(seconds["ours"]), statistics.median(seconds["bare"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="even the smallest count has blocks with audio")
    parser.add_argument("--size", type=int, default=32, help="latent height and width (64 = 512 pixels)")
    parser.add_argument("--history", type=int, default=15, help="latent frames in the cache")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    print("| dtype | forward, s | GEMM + SDPA, s | ratio |\n|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        ours, gemm = measure(args.layers, args.size, args.history, dtype, args.repeats)
        print(f"| {str(dtype).removeprefix('torch.')} | {ours:.3f} | {gemm:.3f} | {ours / gemm:.3f} |", flush=True)


if __name__ == "__main__":
    main()
