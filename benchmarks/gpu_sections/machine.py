"""The machine: its card, its speed and what is installed."""

from __future__ import annotations

import sys

import torch

from joyavatar_core.model.attention import available_backends

from .bench import Bench
from .h264 import NO_VIDEO, VideoWriter


def machine(bench: Bench) -> None:
    bench.report("torch", torch.__version__, "", f"Python {sys.version.split()[0]}, {torch.get_num_threads()} threads")
    size, moved = (256, 2**16) if bench.args.tiny else (8192, 2**30)
    if bench.cuda:
        card = torch.cuda.get_device_properties(bench.device)
        bench.report("card", card.name, "", f"{card.multi_processor_count} SMs, {card.total_memory / 2**30:.0f} GiB")
    a = torch.randn(size, size, device=bench.device, dtype=bench.dtype)
    bench.report("bfloat16 product", 2 * size**3 / bench.ms(lambda: a @ a) / 1e9, "TFLOP/s", f"{size}^3")
    source = torch.randint(0, 255, (moved,), device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    bench.report(
        "copy on the device", 2 * moved / bench.ms(lambda: target.copy_(source)) / 1e9, "TB/s", "read + written"
    )
    bench.report("PyAV", "there" if VideoWriter else NO_VIDEO)
    bench.report("attention back ends", ", ".join(available_backends()))
    bench.report("parameters", sum(p.numel() for p in bench.model.parameters()) / 1e9, "B")
