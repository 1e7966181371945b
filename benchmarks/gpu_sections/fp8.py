"""Matrix products in float8."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from joyavatar_core.geometry import to_latent_size, tokens_per_frame

from .bench import Bench
from .errors import relative


def fp8(bench: Bench) -> None:
    """Products in float8 with a scale a tensor, against bfloat16."""
    config, tokens = bench.config, 3 * tokens_per_frame(to_latent_size(bench.size))
    one = torch.ones((), device=bench.device)
    for n, k in ((3 * config.dim, config.dim), (config.ffn_dim, config.dim), (config.dim, config.ffn_dim)):
        x, w = (torch.randn(rows, k, device=bench.device, dtype=bench.dtype) for rows in (tokens, n))
        half = bench.ms(lambda x=x, w=w: F.linear(x, w), 20)
        a, b = x.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn).t()
        product = lambda a=a, b=b: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=bench.dtype)  # noqa: E731
        label = f"{tokens} x {k} -> {n}"
        with bench.trying(label):
            error = relative(product(), F.linear(x, w))
            bench.report(label, bench.ms(product, 20), "ms", f"bfloat16 {half:.3f} ms, error {error:.3f}")
