"""Where a block's time goes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from joyavatar_core.geometry import LATENT_CHANNELS, to_latent_size

from .bench import Bench
from .h264 import VideoWriter, chosen_encoder

HISTORY = (0, 6, 12, 18)  # latent frames remembered; a block of 3 comes behind them


@torch.no_grad()
def stages(bench: Bench) -> None:
    """Milliseconds of each stage of one block, one after the other."""
    config, (width, height) = bench.config, bench.size
    w, h = to_latent_size(bench.size)
    parts: dict[str, float] = {}
    features = torch.randn(1, 3, 4, config.audio_dim, device=bench.device, dtype=bench.dtype)
    audio_embedding = bench.model.encode_audio(features)
    for history in HISTORY:
        with bench.trying(f"forward, {history} frames remembered"):
            bare = bench.floor(history)
            taken = bench.ms(bench.one_pass(history))
            note = f"floor {bare:.2f} ms, ratio {taken / bare:.2f}"
            bench.report(f"forward, {history} frames remembered", taken, "ms", note)
    parts["audio"] = bench.ms(lambda: (bench.model.encode_audio(features), bench.model.project_audio(audio_embedding)))
    parts["overlay"] = bench.ms(bench.one_pass(12, cache_only=True))
    parts["4 forwards"] = 4 * bench.ms(bench.one_pass(15))
    parts["cache update"] = bench.ms(bench.one_pass(15, cache_only=True))
    full = bench.one_pass(18).cache
    full.commit(range(18, 21), range(18, 21))
    state = full.state_dict(copy=False)

    def reset() -> None:
        full.frame_ids, full.positions = list(state["frames"]), list(state["positions"])
        full.keep([0, 1, 2, *range(15, 21)])
        full.shift(range(3, 9), -12)

    bench.report("reset", bench.ms(reset), "ms", "every fourth block")
    z = torch.randn(1, LATENT_CHANNELS, 3, h, w, device=bench.device, dtype=bench.dtype)
    for name, decoder in (("Wan's autoencoder", bench.vae), ("tiny decoder", bench.tiny)):
        with bench.trying(f"stage: decode, {name}"):
            cache = decoder.new_cache()
            decoder.decode(z, cache)
            parts[f"decode, {name}"] = bench.ms(lambda d=decoder, c=cache: d.decode(z, c), 4)
    pictures = torch.randint(0, 255, (12, height, width, 3), device=bench.device, dtype=torch.uint8)
    parts["download"] = bench.ms(lambda: pictures.cpu())
    here = pictures.cpu()
    encoders = sorted({"x264", chosen_encoder("auto", width, height)}) if VideoWriter is not None else []
    for encoder in encoders:
        with (
            bench.trying(f"stage: encode, {encoder}"),
            tempfile.TemporaryDirectory() as folder,
            VideoWriter(Path(folder) / "x.mp4", width, height, 16, encoder=encoder) as writer,
        ):
            started = time.perf_counter()
            writer.write(here)
            parts[f"encode, {encoder}"] = 1e3 * (time.perf_counter() - started)
    for name, value in parts.items():
        bench.report(f"stage: {name}", value, "ms")
