"""What a block launches on the device, and where the host waits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.run import StreamRun

from .bench import Bench


def kernels(bench: Bench) -> None:
    """Kernels launched and waits of the host in one block, by the profiler."""
    if not bench.cuda:
        bench.report("kernels", "only on a GPU")
        return
    from torch.profiler import ProfilerActivity, profile

    for name in ("checkpoint", "joyavatar"):
        chosen, decoder = bench.settings(name)
        made = frames_of(StreamRun(bench.stream(chosen)), decoder, overlap=False)
        with contextlib.closing(made):
            for _ in range(7):
                next(made)
            with bench.trying(f"unwanted waits a block, {name}"):
                bench.report(f"unwanted waits a block, {name}", waits(lambda made=made: next(made)))
            with bench.trying(f"kernels a block, {name}"):
                with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                    next(made)
                    bench.sync()
                say_kernels(bench, name, seen.key_averages())


def say_kernels(bench: Bench, name: str, events: Sequence[Any]) -> None:
    """Rows of a profile: kernels, waits and copies, and what takes longest on the device."""

    def count(word: str) -> int:
        return sum(event.count for event in events if word in event.key)

    on_device = sum(event.count for event in events if event.device_type == torch.autograd.DeviceType.CUDA)
    bench.report(f"kernels a block, {name}", on_device, "", "0: the profiler sees no device here")
    wanted = "two are wanted, one is the profiler's end"
    bench.report(f"waits a block, {name}", count("Synchronize"), "", f"synchronisations of any kind; {wanted}")
    bench.report(f"copies to the device a block, {name}", count("HtoD"))
    slow = sorted(events, key=lambda event: -getattr(event, "self_device_time_total", 0))[:12]
    for event in slow:
        bench.report(f"{name}: {event.key[:60]}", event.self_device_time_total / 1e3, "ms", f"{event.count} x")


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
