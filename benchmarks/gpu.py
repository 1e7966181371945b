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
import functools
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gpu_sections.autoencoder import autoencoder
from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.errors import errors
from benchmarks.gpu_sections.fp8 import fp8
from benchmarks.gpu_sections.kernels import kernels
from benchmarks.gpu_sections.machine import machine
from benchmarks.gpu_sections.optimisations import optimisations
from benchmarks.gpu_sections.peer import peer
from benchmarks.gpu_sections.stages import stages
from benchmarks.gpu_sections.talk import talk, talk_tuned

SECTIONS = (
    ("machine", machine),
    ("errors against float32 on the CPU", errors),
    ("talk", talk),
    ("stages", stages),
    ("kernels", kernels),
    ("autoencoder", autoencoder),
    # Behind what is known to run: a fault on the device ends all that follows.
    ("optimisations", optimisations),
    ("talk, tuned", talk_tuned),
    ("fp8 products", fp8),
    ("peer", peer),
)


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
    for title, section in SECTIONS:
        bench.report.run(title, functools.partial(section, bench))
    print(
        f"done in {time.monotonic() - started:.0f} s"
        + (f"; not done: {bench.report.failed}" if bench.report.failed else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
