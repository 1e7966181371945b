"""The 1.3B stream on one GPU: frames per second with everything counted, where a block's time goes, and the errors.

    python benchmarks/gpu.py --out DIR                  # on a card: at most 6 minutes
    python benchmarks/gpu.py --tiny --device cpu        # the whole script in seconds, to see that it runs

Needs no files and no network: transformer, autoencoder and tiny decoder get seeded random weights on the device. A row
or a section that fails says why and the next one runs. DIR gets gpu.md, the table, and gpu.json, both written anew
after every row. --peer PATH names a checkout of LiveTalk, whose own loop is then timed through a file
livetalk_peer.py beside this one, which you write: measure(path, config, size, device) gives (what, value, unit) rows.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Report
from joyavatar_core.audio import Features
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.geometry import LATENT_CHANNELS, to_latent_size, tokens_per_frame
from joyavatar_core.model import pointwise
from joyavatar_core.model.attention import attention_backend, available_backends
from joyavatar_core.model.fp8_linear import keep_in_fp8
from joyavatar_core.model.graphs import GraphedPasses
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import AvatarTransformer, SelfContext
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.presets import Preset, preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.vae import StreamingVAE, TinyDecoder, conv

try:
    from joyavatar_core.video import VideoWriter
    from joyavatar_core.video.h264 import chosen_encoder
except ImportError as missing:
    VideoWriter, NO_VIDEO = None, f"no H.264: {missing}"

TINY = AvatarConfig(
    dim=64, ffn_dim=128, num_heads=2, num_layers=4, text_dim=16, freq_dim=32, audio_dim=16, audio_hidden=8,
    width=64, height=64,
)  # fmt: skip
HISTORY = (0, 6, 12, 18)  # latent frames remembered; a block of 3 comes behind them
SHOWN = ("checkpoint", "joyavatar", "realtime")


class FeatureVoice(Features):
    """A voice that never ends, as features: no audio package is needed."""

    block_frames = 3

    def __init__(self, config: AvatarConfig) -> None:
        self.feature_dim, self.fps, self.num_video_frames = config.audio_dim, config.fps, 10**6
        self.rows = torch.randn(64, 4, self.feature_dim, generator=torch.Generator().manual_seed(3))

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return True

    def latent_features(self, first: int, count: int) -> Tensor:
        return self.rows[[(first + k) % len(self.rows) for k in range(count)]]


@torch.no_grad()
def filled(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A module with seeded random weights made on the device; outputs keep about unit scale."""
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, p in module.named_parameters():
        if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
            p.fill_(1)
        else:
            damped = ".residual.6." in name or name == "decoder.head.2.weight"
            spread = 0.1 if p.ndim == 1 or name.endswith("modulation") else 1 / math.sqrt(math.prod(p.shape[1:]))
            p.normal_(0, spread / (2 if damped else 1), generator=generator)
    return module


def relative(ours: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact result."""
    ours, exact = ours.detach().double().cpu(), exact.detach().double().cpu()
    return ((ours - exact).square().mean() / exact.square().mean()).sqrt().item()


class Bench:
    """The models on the device and the sections that measure them."""

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

    # --- what is measured ------------------------------------------------------------------------------------------

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
        x, y, narrow, wide = (
            make(tokens, config.dim),
            make(tokens, config.ffn_dim),
            make(config.ffn_dim, config.dim),
            None,
        )
        wide = make(config.dim, config.ffn_dim)
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

    # --- sections --------------------------------------------------------------------------------------------------

    def machine(self) -> None:
        self.report(
            "torch", torch.__version__, "", f"Python {sys.version.split()[0]}, {torch.get_num_threads()} threads"
        )
        size, moved = (256, 2**16) if self.args.tiny else (8192, 2**30)
        if self.cuda:
            card = torch.cuda.get_device_properties(self.device)
            self.report("card", card.name, "", f"{card.multi_processor_count} SMs, {card.total_memory / 2**30:.0f} GiB")
        a = torch.randn(size, size, device=self.device, dtype=self.dtype)
        self.report("bfloat16 product", 2 * size**3 / self.ms(lambda: a @ a) / 1e9, "TFLOP/s", f"{size}^3")
        source = torch.randint(0, 255, (moved,), device=self.device, dtype=torch.uint8)
        target = torch.empty_like(source)
        self.report(
            "copy on the device", 2 * moved / self.ms(lambda: target.copy_(source)) / 1e9, "TB/s", "read + written"
        )
        self.report("PyAV", "there" if VideoWriter else NO_VIDEO)
        self.report("attention back ends", ", ".join(available_backends()))
        self.report("parameters", sum(p.numel() for p in self.model.parameters()) / 1e9, "B")

    def errors(self) -> None:
        """Stream and autoencoder against float32 on the CPU, small; the variants come with their speeds."""
        for dtype in (torch.float32, torch.bfloat16):
            for name in SHOWN:
                label = f"stream, {dtype}, {name}"
                with self.trying(label), without_tf32():
                    self.report(label, self.stream_error(name, dtype), "relative")
        vae = filled(lambda: StreamingVAE(self.width), torch.device("cpu"), torch.float32)
        z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(2))
        truth = vae.decode(z, clamp=False)
        state = vae.state_dict()
        for dtype in (torch.float32, torch.bfloat16):
            ours = filled(lambda: StreamingVAE(self.width), self.device, dtype)
            ours.load_state_dict(state)
            for form in (conv.VOLUME, conv.STACKED):
                label = f"autoencoder, {dtype}, {form}"
                with self.trying(label), decoding(self.device, form), without_tf32():
                    made = ours.decode(z.to(self.device), clamp=False)
                    self.report(label, relative(made, truth), "relative")

    def stream_error(
        self, name: str, dtype: torch.dtype = torch.bfloat16, compiled: bool = False, **fields: object
    ) -> float:
        """Relative error of two blocks of a small stream under a preset, against float32 on the CPU."""
        config = TINY if self.args.tiny else AvatarConfig(num_layers=4)
        size, chosen = (64, 64) if self.args.tiny else (128, 128), preset(name, config)
        if self.exact is None:
            self.exact = filled(lambda: AvatarTransformer(config), torch.device("cpu"), torch.float32)

        def latents(model: AvatarTransformer, **fields: object) -> Tensor:
            run = StreamRun(self.stream(chosen, size, model, **fields))
            return torch.cat([next(run).latents.float().cpu() for _ in range(2)], dim=2)

        if name not in self.truths:
            self.truths[name] = latents(self.exact)
        model = self.new_model(config, dtype)
        model.load_state_dict(self.exact.state_dict())
        if compiled:
            model.pointwise = pointwise.compiled()
        return relative(latents(model, **fields), self.truths[name])

    def variants(self, model: AvatarTransformer) -> dict[str, contextlib.AbstractContextManager]:
        """Each optimisation of the transformer, as a context in which it is on."""
        found = {"q, k, v apart" if self.cuda else "packed q, k, v": packed(model, not self.cuda)}
        if self.cuda:
            found["compiled steps"] = changed(model, "pointwise", pointwise.compiled())
        for name in available_backends():
            if name != "sdpa" and self.cuda:
                with contextlib.suppress(AvatarError):
                    found[f"attention {name}"] = changed(
                        model, "attention", attention_backend(name, self.device, self.dtype)
                    )
        return found

    def talk(self) -> None:
        """Frames per second with everything counted: sampling, decoding, download, H.264, mux."""
        for size in self.args.size:
            for name in SHOWN:
                label = f"talk: {name}, {size[0]}x{size[1]}"
                with self.trying(label):
                    self.speed(label, name, size)

    def talk_tuned(self) -> None:
        """The same with one thing changed, and with everything on."""
        ways = {
            "one stage after the other": (contextlib.nullcontext(), {"overlap": False}),
            "keys in fp8": (contextlib.nullcontext(), {"kv_dtype": torch.float8_e4m3fn}),
        }
        if self.cuda:
            ways["graphs"] = (contextlib.nullcontext(), {"graphs": True})
            ways["compiled, graphs"] = (self.everything(), {"graphs": True})
        for name, (change, fields) in ways.items():
            label = f"talk: checkpoint, {name}"
            with self.trying(label), change:
                self.speed(label, "checkpoint", self.size, **fields)
        label = "talk: realtime, everything"
        with self.trying(label), self.everything() if self.cuda else contextlib.nullcontext():
            self.speed(label, "realtime", self.size, graphs=self.cuda)

    def speed(self, label: str, name: str, size: tuple[int, int], overlap: bool = True, **fields: object) -> None:
        """A row with the frames/s of a talk behind its first blocks, and beside it the seconds to its first frame, peak
        memory, and the error of a small stream with the same settings.

        One block of another stream comes before it, so that the first frame is that of a warm device.
        """
        chosen, decoder = self.settings(name)
        warm, blocks = (2, 2) if self.args.tiny else (8, 16)
        with contextlib.closing(frames_of(StreamRun(self.stream(chosen, size)), decoder, overlap=False)) as made:
            next(made)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            writer = None
            if VideoWriter is not None:
                writer = stack.enter_context(VideoWriter(Path(folder) / "talk.mp4", *size, self.config.fps))
            began, first, frames, counted = time.perf_counter(), 0.0, 0, 0.0
            run = StreamRun(self.stream(chosen, size, **fields))
            with contextlib.closing(run), contextlib.closing(frames_of(run, decoder, overlap=overlap)) as made:
                for block, pictures in made:
                    first = first or time.perf_counter() - began
                    if block.index == warm:
                        counted = time.perf_counter()
                    frames += len(pictures) if block.index > warm else 0
                    if writer is not None:
                        writer.write(pictures)
                    if block.index == warm + blocks:
                        break
            seconds = time.perf_counter() - counted
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else 0.0
        try:
            compiled = self.model.pointwise is not pointwise.EAGER
            error = f"{self.stream_error(name, compiled=compiled, **fields):.1e}"
        except Exception as problem:  # the speed stands, and says that nothing vouches for its picture
            error = f"unknown, {type(problem).__name__}"
        note = f"first frame {first:.2f} s, peak {peak:.1f} GiB, error {error}"
        note += "" if VideoWriter else f", {NO_VIDEO}"
        self.report(label, frames / seconds, "frames/s", note)

    @torch.no_grad()
    def stages(self) -> None:
        """Milliseconds of each stage of one block, one after the other, and their sum."""
        config, (width, height) = self.config, self.size
        w, h = to_latent_size(self.size)
        parts: dict[str, float] = {}
        features = torch.randn(1, 3, 4, config.audio_dim, device=self.device, dtype=self.dtype)
        audio_embedding = self.model.encode_audio(features)
        for history in HISTORY:
            with self.trying(f"forward, {history} frames remembered"):
                bare = self.floor(history)
                taken = self.ms(self.one_pass(history))
                note = f"floor {bare:.2f} ms, ratio {taken / bare:.2f}"
                self.report(f"forward, {history} frames remembered", taken, "ms", note)
        parts["audio"] = self.ms(lambda: (self.model.encode_audio(features), self.model.project_audio(audio_embedding)))
        parts["overlay"] = self.ms(self.one_pass(12, cache_only=True))
        parts["4 forwards"] = 4 * self.ms(self.one_pass(15))
        parts["cache update"] = self.ms(self.one_pass(15, cache_only=True))
        full = self.one_pass(18).cache
        full.commit(range(18, 21), range(18, 21))
        state = full.state_dict(copy=False)

        def reset() -> None:
            full.frame_ids, full.positions = list(state["frames"]), list(state["positions"])
            full.keep([0, 1, 2, *range(15, 21)])
            full.shift(range(3, 9), -12)

        self.report("reset", self.ms(reset), "ms", "every fourth block")
        z = torch.randn(1, LATENT_CHANNELS, 3, h, w, device=self.device, dtype=self.dtype)
        for name, decoder in (("Wan's autoencoder", self.vae), ("tiny decoder", self.tiny)):
            with self.trying(f"stage: decode, {name}"):
                cache = decoder.new_cache()
                decoder.decode(z, cache)
                parts[f"decode, {name}"] = self.ms(lambda d=decoder, c=cache: d.decode(z, c), 4)
        pictures = torch.randint(0, 255, (12, height, width, 3), device=self.device, dtype=torch.uint8)
        parts["download"] = self.ms(lambda: pictures.cpu())
        here = pictures.cpu()
        encoders = sorted({"x264", chosen_encoder("auto", width, height)}) if VideoWriter is not None else []
        for encoder in encoders:
            with (
                self.trying(f"stage: encode, {encoder}"),
                tempfile.TemporaryDirectory() as folder,
                VideoWriter(Path(folder) / "x.mp4", width, height, 16, encoder=encoder) as writer,
            ):
                started = time.perf_counter()
                writer.write(here)
                parts[f"encode, {encoder}"] = 1e3 * (time.perf_counter() - started)
        for name, value in parts.items():
            self.report(f"stage: {name}", value, "ms")

    def optimisations(self) -> None:
        """A forward behind 15 remembered frames: as the convolution leaves its strides, and with each optimisation."""
        run = self.one_pass(15)
        plain, reference = self.ms(run), run().clone()

        def differs(made: Tensor) -> float:
            return relative(made, reference)

        self.report("forward, eager", plain, "ms", f"floor {self.floor(15):.2f} ms")
        hook = self.model.blocks[0].register_forward_pre_hook(
            lambda _, inputs: (inputs[0].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), *inputs[1:])
        )
        try:
            self.report("forward, residual stream strided", self.ms(run), "ms", "as before it was made contiguous")
        finally:
            hook.remove()
        with torch.enable_grad():  # writes the padding out
            written = self.model.encode_text(
                torch.zeros(1, 0, self.config.text_dim, device=self.device, dtype=self.dtype), 512
            )
        self.report("forward, 512 equal text keys written out", self.ms(lambda: run(written)), "ms")
        for name, change in self.variants(self.model).items():
            with self.trying(f"forward, {name}"), change:
                taken = self.ms(run)
                self.report(
                    f"forward, {name}", taken, "ms", f"{plain / taken:.2f} x eager, differs by {differs(run()):.1e}"
                )
        with self.trying("forward, weights in fp8"):
            small = copy.deepcopy(self.model)
            keep_in_fp8(small.blocks)
            with changed(self, "model", small):
                taken = self.ms(run)
                note = f"{plain / taken:.2f} x eager, differs by {differs(run()):.1e}"
                self.report("forward, weights in fp8", taken, "ms", note)
            del small
        if not self.cuda:
            return
        for name, change in {"graph": contextlib.nullcontext(), "graph of everything": self.everything()}.items():
            with self.trying(f"forward, {name}"), change:
                graphs = GraphedPasses(self.model, run.cache, run.text)
                taken, made = self.ms(lambda g=graphs: run(graphs=g)), run(graphs=graphs)
                self.report(
                    f"forward, {name}", taken, "ms", f"{plain / taken:.2f} x eager, differs by {differs(made):.1e}"
                )

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

    @contextlib.contextmanager
    def everything(self) -> Iterator[None]:
        with changed(self.model, "pointwise", pointwise.compiled()):
            yield

    def kernels(self) -> None:
        """Kernels launched and waits of the host in one block, by the profiler."""
        if not self.cuda:
            self.report("kernels", "only on a GPU")
            return
        from torch.profiler import ProfilerActivity, profile

        for name in ("checkpoint", "joyavatar"):
            chosen, decoder = self.settings(name)
            made = frames_of(StreamRun(self.stream(chosen)), decoder, overlap=False)
            with contextlib.closing(made):
                for _ in range(7):
                    next(made)
                with self.trying(f"unwanted waits a block, {name}"):
                    self.report(f"unwanted waits a block, {name}", waits(lambda made=made: next(made)))
                with self.trying(f"kernels a block, {name}"):
                    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                        next(made)
                        self.sync()
                    self.say_kernels(name, seen.key_averages())

    def say_kernels(self, name: str, events: Sequence[Any]) -> None:
        """Rows of a profile: kernels, waits and copies, and what takes longest on the device."""

        def count(word: str) -> int:
            return sum(event.count for event in events if word in event.key)

        on_device = sum(event.count for event in events if event.device_type == torch.autograd.DeviceType.CUDA)
        self.report(f"kernels a block, {name}", on_device, "", "0: the profiler sees no device here")
        wanted = "two are wanted, one is the profiler's end"
        self.report(f"waits a block, {name}", count("Synchronize"), "", f"synchronisations of any kind; {wanted}")
        self.report(f"copies to the device a block, {name}", count("HtoD"))
        slow = sorted(events, key=lambda event: -getattr(event, "self_device_time_total", 0))[:12]
        for event in slow:
            self.report(f"{name}: {event.key[:60]}", event.self_device_time_total / 1e3, "ms", f"{event.count} x")

    @torch.no_grad()
    def autoencoder(self) -> None:
        """Wan's decoder in each form: milliseconds a block and peak memory."""
        w, h = to_latent_size(self.size)
        z = torch.randn(1, LATENT_CHANNELS, 3, h, w, device=self.device)
        for dtype in (torch.bfloat16, torch.float32):
            vae = filled(lambda: StreamingVAE(self.width), self.device, dtype)
            for form, at_once in ((conv.VOLUME, None), (conv.VOLUME, 1), (conv.STACKED, None)):
                vae.at_once, cache = at_once, vae.new_cache()
                label = f"{dtype}, {form}, {at_once or 'all'} latents at once"
                if self.cuda:
                    torch.cuda.reset_peak_memory_stats(self.device)
                with self.trying(label), decoding(self.device, form):
                    vae.decode(z, cache)
                    taken = self.ms(lambda v=vae, c=cache: v.decode(z, c), 3, 1)
                    peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else 0.0
                    self.report(label, taken, "ms", f"{12e3 / taken:.0f} frames/s, peak {peak:.1f} GiB")

    def fp8(self) -> None:
        """Products in float8 with a scale a tensor, against bfloat16."""
        config, tokens = self.config, 3 * tokens_per_frame(to_latent_size(self.size))
        one = torch.ones((), device=self.device)
        for n, k in ((3 * config.dim, config.dim), (config.ffn_dim, config.dim), (config.dim, config.ffn_dim)):
            x, w = (torch.randn(rows, k, device=self.device, dtype=self.dtype) for rows in (tokens, n))
            half = self.ms(lambda x=x, w=w: F.linear(x, w), 20)
            a, b = x.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn).t()
            product = lambda a=a, b=b: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=self.dtype)  # noqa: E731
            label = f"{tokens} x {k} -> {n}"
            with self.trying(label):
                error = relative(product(), F.linear(x, w))
                self.report(label, self.ms(product, 20), "ms", f"bfloat16 {half:.3f} ms, error {error:.3f}")

    def peer(self) -> None:
        """LiveTalk's own loop over its own model, where a checkout is at hand."""
        if self.args.peer is None:
            self.report("LiveTalk", "not measured: no --peer")
            return
        from livetalk_peer import measure  # a file beside this script that its user writes for a checkout of theirs

        for what, value, unit in measure(self.args.peer, self.config, self.size, self.device):
            self.report(what, value, unit)


@contextlib.contextmanager
def changed(owner: object, name: str, value: object) -> Iterator[None]:
    """An attribute with another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def packed(model: AvatarTransformer, together: bool) -> Iterator[None]:
    """q, k and v as one product for a while, or as three."""
    layers = [block.self_attn for block in model.blocks]
    before = [layer.packed for layer in layers]
    for layer in layers:
        if together:
            layer.pack()
        else:
            layer.packed = None
    try:
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.packed = kept


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions in float32 as they are on a CPU; products are so anyway."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def waits(call: Callable[[], object]) -> int:
    """How often a call waits for the device on the way, where torch notices: reads and copies, not `synchronize`."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said)


@contextlib.contextmanager
def decoding(device: torch.device, form: str) -> Iterator[None]:
    """The autoencoder's convolutions in one form, without bands of rows, for a while."""
    before, limit = dict(conv.FORMS), conv.STACK_LIMIT
    conv.FORMS[device.type], conv.STACK_LIMIT = form, limit if device.type == "cpu" else 1 << 40
    try:
        yield
    finally:
        conv.FORMS.clear()
        conv.FORMS.update(before)
        conv.STACK_LIMIT = limit


def size_of(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a miniature, to see that the script runs")
    parser.add_argument("--size", type=size_of, nargs="+", help="default: 512x512 832x480")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which no further section begins")
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument("--peer", type=Path, help="a checkout of LiveTalk")
    parser.add_argument("--only", nargs="*", default=[], help="words of the sections' titles")
    args = parser.parse_args(arguments)
    args.size = args.size or ([(64, 64)] if args.tiny else [(512, 512), (832, 480)])
    if args.peer is not None and not args.peer.is_dir():
        parser.error(f"--peer {args.peer} is no folder; give a checkout of LiveTalk")
    torch.manual_seed(0)
    started = time.monotonic()
    if args.device.startswith("cuda"):
        torch.cuda.set_device(torch.device(args.device).index or 0)
    bench = Bench(args)
    run = bench.report.run
    run("machine", bench.machine)
    run("errors against float32 on the CPU", bench.errors)
    run("talk", bench.talk)
    run("stages", bench.stages)
    run("kernels", bench.kernels)
    run("autoencoder", bench.autoencoder)
    # Behind what is known to run: a fault on the device ends all that follows.
    run("optimisations", bench.optimisations)
    run("talk, tuned", bench.talk_tuned)
    run("fp8 products", bench.fp8)
    run("peer", bench.peer)
    print(
        f"done in {time.monotonic() - started:.0f} s"
        + (f"; not done: {bench.report.failed}" if bench.report.failed else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
