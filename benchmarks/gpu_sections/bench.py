"""The bench: the models on the device, and how a call, a pass and a stream are measured."""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyavatar_core.config import AvatarConfig
from joyavatar_core.geometry import LATENT_CHANNELS, to_latent_size, tokens_per_frame
from joyavatar_core.model.graphs import GraphedPasses
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import AvatarTransformer, SelfContext
from joyavatar_core.sampling.presets import Preset, preset
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.vae import StreamingVAE, TinyDecoder

from ..report import Report
from .seeded import TINY, FeatureVoice, filled

SHOWN = ("checkpoint", "joyavatar", "realtime")


class Bench:
    """The models on the device, and what their sections share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.report = args, Report(args.out, args.minutes, args.only)
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.dtype = torch.bfloat16
        self.config = TINY if args.tiny else AvatarConfig()
        self.width = 8 if args.tiny else 96
        self.model = self.new_model(self.config)
        self.vae = filled(lambda: StreamingVAE(self.width), self.device, self.dtype)
        self.tiny = filled(
            lambda: TinyDecoder((32, 16, 8, 8) if args.tiny else (256, 128, 64, 64)), self.device, self.dtype
        )
        self.size = args.size[0]
        self.exact: AvatarTransformer | None = None  # small, in float32 on the CPU
        self.truths: dict[str, Tensor] = {}  # its blocks, by preset
        for block in self.model.blocks if self.cuda else ():
            block.self_attn.pack()  # as for every avatar that is loaded to a GPU

    def new_model(self, config: AvatarConfig, dtype: torch.dtype | None = None) -> AvatarTransformer:
        return filled(lambda: AvatarTransformer(config), self.device, dtype or self.dtype)

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def ms(self, call: Callable[[], object], repeats: int = 8, warm: int = 2) -> float:
        """Median milliseconds of a call on the device (CUDA events), or by the clock elsewhere."""
        if self.args.tiny:
            repeats, warm = 2, 1
        for _ in range(warm):
            call()
        self.sync()
        times = []
        for _ in range(repeats):
            if self.cuda:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                call()
                last.record()
                last.synchronize()
                times.append(first.elapsed_time(last))
            else:
                started = time.perf_counter()
                call()
                times.append(1e3 * (time.perf_counter() - started))
        return statistics.median(times)

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """A measurement that may fail without ending its section; none begins once the time is up."""
        try:
            if self.report.over:
                raise TimeoutError("the time is up")
            yield
        except Exception as problem:
            self.report(what, f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:120]}")
            self.report.failed.append(what)
        if self.cuda:
            gc.collect()  # an exception holds the tensors of its frames
            torch.cuda.empty_cache()

    def settings(self, name: str) -> tuple[Preset, nn.Module]:
        """The settings and the decoder of a preset."""
        return preset(name, self.config), self.tiny if name == "realtime" else self.vae

    def stream(self, chosen: Preset, size: tuple[int, int] | None = None, model=None, **fields) -> AvatarStream:
        w, h = to_latent_size(size or self.size)
        reference = torch.randn(1, LATENT_CHANNELS, 1, h, w, generator=torch.Generator().manual_seed(1))
        model = model or self.model
        return AvatarStream(
            model, reference, FeatureVoice(model.config), psb=chosen.psb, mci=chosen.mci, urcr=chosen.urcr,
            video_frames=10**6, **fields,
        )  # fmt: skip

    def one_pass(self, history: int, frames: int = 3, cache_only: bool = False, kv_dtype=None) -> Callable[[], Tensor]:
        """A pass over `frames` latent frames behind `history` remembered ones, at the chosen size."""
        config, latent_size = self.config, to_latent_size(self.size)
        w, h = latent_size
        dtype = kv_dtype or self.dtype
        cache = KVCache(
            config.num_layers, 1, history + frames, tokens_per_frame(latent_size), config.num_heads, config.head_dim,
            dtype, self.device,
        )  # fmt: skip
        for tensor in (cache.keys, cache.values):
            tensor.copy_(torch.randn(tensor.shape[1:], device=self.device, dtype=self.dtype).expand_as(tensor))
        cache.commit(range(history), range(history))
        timesteps = torch.full((1, frames), 936.0, device=self.device)
        rope = self.model.rope(range(history, history + frames), h, w, self.device)
        latents = torch.randn(1, config.in_channels, frames, h, w, device=self.device, dtype=self.dtype)
        audio_embedding = torch.randn(1, frames, config.audio_hidden, device=self.device, dtype=self.dtype)
        with torch.no_grad():
            text = self.model.encode_text(torch.zeros(1, 0, config.text_dim, device=self.device, dtype=self.dtype), 512)

        @torch.no_grad()
        def run(text=text, graphs: GraphedPasses | None = None) -> Tensor:
            if graphs is not None:
                return graphs(latents, timesteps, audio_embedding, rope, history, cache_only)
            context = SelfContext(rope, cache, history, None, self.model.attention, self.model.pointwise)
            return self.model(latents, timesteps, text, self.model.project_audio(audio_embedding), context, cache_only)

        run.cache, run.text = cache, text
        return run

    def floor(self, history: int, frames: int = 3) -> float:
        """Milliseconds of a pass's matrix products and attention alone."""
        config, tokens = self.config, frames * tokens_per_frame(to_latent_size(self.size))
        make = lambda *shape: torch.randn(*shape, device=self.device, dtype=self.dtype)  # noqa: E731
        x, y = make(tokens, config.dim), make(tokens, config.ffn_dim)
        narrow, wide = make(config.ffn_dim, config.dim), make(config.dim, config.ffn_dim)
        qkv, out = make(3 * config.dim, config.dim), make(config.dim, config.dim)
        q = make(1, config.num_heads, tokens, config.head_dim)
        k = make(1, config.num_heads, tokens * (history + frames) // frames, config.head_dim)

        def layer() -> None:
            F.linear(x, qkv)
            F.scaled_dot_product_attention(q, k, k)
            F.linear(x, out)
            F.linear(x, narrow)
            F.linear(y, wide)

        return self.ms(layer, 20) * config.num_layers
