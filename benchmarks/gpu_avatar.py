"""The embedded avatar on one GPU: frames per second of refined and plain frames, and their errors.

    python benchmarks/gpu_avatar.py --out DIR                          # on a card: about a minute
    python benchmarks/gpu_avatar.py --device cpu --blocks 2 --warm 1   # to see that it runs

Needs no network; the weights are in the repository. Everything but the writing of the file is counted, frames on the
CPU as bytes. DIR gets gpu.md, the table, and gpu.json, both written anew after every row.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Report
from joyavatar_core.audio import ArrayAudio
from joyavatar_core.pipeline.avatar import Avatar, AvatarOptions, load_avatar
from joyavatar_core.pipeline.embedded import ASSETS
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream

# What is measured: the refined size, the preset, and whether passes are captured as CUDA graphs.
RUNS = (
    ("on", "checkpoint", False), ("2x", "checkpoint", False), ("off", "checkpoint", False), ("on", "realtime", False),
    ("on", "checkpoint", True), ("2x", "realtime", True),
)  # fmt: skip
COMPARED = 4  # blocks whose frames are compared with the CPU's


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, default=60, help="counted in each run")
    parser.add_argument("--warm", type=int, default=8, help="blocks before them")
    parser.add_argument("--minutes", type=float, default=3.0, help="after which nothing further begins")
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument("--only", nargs="*", default=[], help="words of the titles of what is measured")
    args = parser.parse_args(arguments)
    report, device = Report(args.out, args.minutes, args.only), torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        report("machine", torch.cuda.get_device_name(device), "", f"torch {torch.__version__}")
    avatar = load_avatar(AvatarOptions(device=device, dtype=torch.bfloat16 if device.type == "cuda" else None))
    for setting, name, graphs in RUNS:
        title = f"refine {setting}, preset {name}{', CUDA graphs' if graphs else ''}"
        report.run(title, lambda s=setting, n=name, g=graphs: speed(report, avatar, s, n, g, args.warm, args.blocks))
    exact = load_avatar(AvatarOptions(dtype=torch.float32))
    for setting in ("on", "off"):
        report.run(f"error, refine {setting}", lambda s=setting: error(report, avatar, exact, s))
    return 1 if report.failed else 0


def stream_of(avatar: Avatar, name: str, blocks: int, graphs: bool = False) -> AvatarStream:
    """A stream of a sample portrait and of noise as its voice."""
    seconds = (blocks + 1) * 4 * avatar.config.block_frames / avatar.config.fps
    voice = ArrayAudio(np.random.default_rng(0).standard_normal(round(16000 * seconds)) * 0.1, 16000)
    portrait = ASSETS / "portraits" / "ada.png"
    return avatar.stream(portrait, voice, preset(name, avatar.config), graphs=graphs)


def speed(report: Report, avatar: Avatar, setting: str, name: str, graphs: bool, warm: int, blocks: int) -> None:
    """Frames per second behind the first blocks, with the seconds to the first frame and the memory's peak."""
    on_gpu = avatar.decoder.compute_device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    stream, started, frames = stream_of(avatar, name, warm + blocks, graphs), time.perf_counter(), 0
    refine, first, counted = avatar.refine(stream, setting), 0.0, 0.0
    with StreamRun(stream) as run, closing(frames_of(run, avatar.decoder, refine=refine)) as made:
        for block, shown in itertools.islice(made, warm + blocks):
            now = time.perf_counter()
            first = first or now - started
            frames += len(shown) if counted else 0
            counted = now if block.index == warm - 1 else counted
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if on_gpu else ""
    width, height = (refine or stream).pixel_size
    report(f"{width} x {height}", frames / (now - counted), "frames/s", f"first frame {first:.2f} s{peak}")


def error(report: Report, avatar: Avatar, exact: Avatar, setting: str) -> None:
    """How far the first frames are from those of the CPU in float32, in grey levels."""
    ours, theirs = (frames(one, setting) for one in (avatar, exact))
    difference = (ours.float() - theirs.float()).abs()
    report("mean difference", float(difference.mean()), "grey levels", f"largest {float(difference.max()):.0f}")


def frames(avatar: Avatar, setting: str) -> Tensor:
    """The first frames of a stream, uint8 [N, H, W, 3]."""
    stream = stream_of(avatar, "checkpoint", COMPARED)
    refine = avatar.refine(stream, setting)
    with StreamRun(stream) as run, closing(frames_of(run, avatar.decoder, refine=refine)) as made:
        return torch.cat([shown for _, shown in itertools.islice(made, COMPARED)])


if __name__ == "__main__":
    sys.exit(main())
