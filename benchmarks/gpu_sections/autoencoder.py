"""Wan's decoder in each form."""

from __future__ import annotations

import torch

from joyavatar_core.geometry import LATENT_CHANNELS, to_latent_size
from joyavatar_core.vae import StreamingVAE, conv

from .bench import Bench
from .contexts import decoding
from .seeded import filled


@torch.no_grad()
def autoencoder(bench: Bench) -> None:
    """Wan's decoder in each form: milliseconds a block and peak memory."""
    w, h = to_latent_size(bench.size)
    z = torch.randn(1, LATENT_CHANNELS, 3, h, w, device=bench.device)
    for dtype in (torch.bfloat16, torch.float32):
        vae = filled(lambda: StreamingVAE(bench.width), bench.device, dtype)
        for form, at_once in ((conv.VOLUME, None), (conv.VOLUME, 1), (conv.STACKED, None)):
            vae.at_once, cache = at_once, vae.new_cache()
            label = f"{dtype}, {form}, {at_once or 'all'} latents at once"
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats(bench.device)
            with bench.trying(label), decoding(bench.device, form):
                vae.decode(z, cache)
                taken = bench.ms(lambda v=vae, c=cache: v.decode(z, c), 3, 1)
                peak = torch.cuda.max_memory_allocated(bench.device) / 2**30 if bench.cuda else 0.0
                bench.report(label, taken, "ms", f"{12e3 / taken:.0f} frames/s, peak {peak:.1f} GiB")
