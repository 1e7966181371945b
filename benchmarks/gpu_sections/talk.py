"""Frames per second of the whole pipeline."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

import torch

from joyavatar_core.model import pointwise
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.run import StreamRun

from .bench import SHOWN, Bench
from .contexts import compiled_steps
from .errors import stream_error
from .h264 import NO_VIDEO, VideoWriter


def talk(bench: Bench) -> None:
    """Frames per second with everything counted: sampling, decoding, download, H.264, mux."""
    for size in bench.args.size:
        for name in SHOWN:
            label = f"talk: {name}, {size[0]}x{size[1]}"
            with bench.trying(label):
                speed(bench, label, name, size)


def talk_tuned(bench: Bench) -> None:
    """The same with one thing changed, and with everything on."""
    ways = {
        "one stage after the other": (contextlib.nullcontext(), {"overlap": False}),
        "keys in fp8": (contextlib.nullcontext(), {"kv_dtype": torch.float8_e4m3fn}),
    }
    if bench.cuda:
        ways["graphs"] = (contextlib.nullcontext(), {"graphs": True})
        ways["compiled, graphs"] = (compiled_steps(bench.model), {"graphs": True})
    for name, (change, fields) in ways.items():
        label = f"talk: checkpoint, {name}"
        with bench.trying(label), change:
            speed(bench, label, "checkpoint", bench.size, **fields)
    label = "talk: realtime, everything"
    with bench.trying(label), compiled_steps(bench.model) if bench.cuda else contextlib.nullcontext():
        speed(bench, label, "realtime", bench.size, graphs=bench.cuda)


def speed(bench: Bench, label: str, name: str, size: tuple[int, int], overlap: bool = True, **fields: object) -> None:
    """A row with the frames/s of a talk behind its first blocks, and beside it the seconds to its first frame, peak
    memory, and the error of a small stream with the same settings.

    One block of another stream comes before it, so that the first frame is that of a warm device.
    """
    chosen, decoder = bench.settings(name)
    warm, blocks = (2, 2) if bench.args.tiny else (8, 16)
    with contextlib.closing(frames_of(StreamRun(bench.stream(chosen, size)), decoder, overlap=False)) as made:
        next(made)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        writer = None
        if VideoWriter is not None:
            writer = stack.enter_context(VideoWriter(Path(folder) / "talk.mp4", *size, bench.config.fps))
        began, first, frames, counted = time.perf_counter(), 0.0, 0, 0.0
        run = StreamRun(bench.stream(chosen, size, **fields))
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
    peak = torch.cuda.max_memory_allocated(bench.device) / 2**30 if bench.cuda else 0.0
    try:
        compiled = bench.model.pointwise is not pointwise.EAGER
        error = f"{stream_error(bench, name, compiled=compiled, **fields):.1e}"
    except Exception as problem:  # the speed stands, and says that nothing vouches for its picture
        error = f"unknown, {type(problem).__name__}"
    note = f"first frame {first:.2f} s, peak {peak:.1f} GiB, error {error}"
    note += "" if VideoWriter else f", {NO_VIDEO}"
    bench.report(label, frames / seconds, "frames/s", note)
