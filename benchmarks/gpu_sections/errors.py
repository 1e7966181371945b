"""Errors against float32 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from joyavatar_core.config import AvatarConfig
from joyavatar_core.model import pointwise
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.vae import StreamingVAE, conv

from .bench import SHOWN, Bench
from .contexts import decoding, without_tf32
from .seeded import TINY, filled


def errors(bench: Bench) -> None:
    """Stream and autoencoder against float32 on the CPU, small; the variants come with their speeds."""
    for dtype in (torch.float32, torch.bfloat16):
        for name in SHOWN:
            label = f"stream, {dtype}, {name}"
            with bench.trying(label), without_tf32():
                bench.report(label, stream_error(bench, name, dtype), "relative")
    vae = filled(lambda: StreamingVAE(bench.width), torch.device("cpu"), torch.float32)
    z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    truth = vae.decode(z, clamp=False)
    state = vae.state_dict()
    for dtype in (torch.float32, torch.bfloat16):
        ours = filled(lambda: StreamingVAE(bench.width), bench.device, dtype)
        ours.load_state_dict(state)
        for form in (conv.VOLUME, conv.STACKED):
            label = f"autoencoder, {dtype}, {form}"
            with bench.trying(label), decoding(bench.device, form), without_tf32():
                made = ours.decode(z.to(bench.device), clamp=False)
                bench.report(label, relative(made, truth), "relative")


def stream_error(
    bench: Bench, name: str, dtype: torch.dtype = torch.bfloat16, compiled: bool = False, **fields: object
) -> float:
    """Relative error of two blocks of a small stream under a preset, against float32 on the CPU."""
    config = TINY if bench.args.tiny else AvatarConfig(num_layers=4)
    size, chosen = (64, 64) if bench.args.tiny else (128, 128), preset(name, config)
    if bench.exact is None:
        bench.exact = filled(lambda: AvatarTransformer(config), torch.device("cpu"), torch.float32)

    def latents(model: AvatarTransformer, **fields: object) -> Tensor:
        run = StreamRun(bench.stream(chosen, size, model, **fields))
        return torch.cat([next(run).latents.float().cpu() for _ in range(2)], dim=2)

    if name not in bench.truths:
        bench.truths[name] = latents(bench.exact)
    model = bench.new_model(config, dtype)
    model.load_state_dict(bench.exact.state_dict())
    if compiled:
        model.pointwise = pointwise.compiled()
    return relative(latents(model, **fields), bench.truths[name])


def relative(ours: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact result."""
    ours, exact = ours.detach().double().cpu(), exact.detach().double().cpu()
    return ((ours - exact).square().mean() / exact.square().mean()).sqrt().item()
