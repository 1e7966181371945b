"""What `joyavatar batch` adds to the same `speak` runs in one process with the avatar kept.

    python benchmarks/batch_overhead.py [--size 128x128] [--seconds 4] [--jobs 3] [--repeats 3]

Both make the same videos of the sample portraits and voices, in turn, in this process. The runs of `speak` record no
state and write no report; the batch does both, and plans, locks, logs and keeps its manifest. Prints seconds of wall
and of processor time for each, medians of the repeats, and the ratios. Exits with 1 where the ratio of processor time
is above the limit.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from joyavatar_core.cli import main as joyavatar
from joyavatar_core.cli.batch import VideoMaker
from joyavatar_core.pipeline.embedded import ASSETS

LIMIT = 1.10


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size", default="128x128")
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each video")
    arguments.add_argument("--jobs", type=int, default=3)
    arguments.add_argument("--repeats", type=int, default=3)
    args = arguments.parse_args()
    logging.disable(logging.WARNING)
    people = [path.stem for path in sorted((ASSETS / "portraits").glob("*.png"))]
    files = [(ASSETS / "portraits" / f"{name}.png", ASSETS / "voices" / f"{name}.flac") for name in people]
    jobs = [files[number % len(files)] for number in range(args.jobs)]
    options = [f"--size={args.size}", f"--seconds={args.seconds}"]
    times: dict[str, list[tuple[float, float]]] = {"speak": [], "batch": []}
    for repeat in range(args.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "jobs.csv")
            table.write_text(
                "\n".join(["portrait,voice", *(f"{portrait},{voice}" for portrait, voice in jobs)]), encoding="utf-8"
            )

            def one_by_one(folder: str = folder) -> None:
                speak = VideoMaker()
                for number, (portrait, voice) in enumerate(jobs):
                    out = f"--out={folder}/{number}.mp4"
                    speak((f"--portrait={portrait}", f"--audio={voice}", out, *options), lambda frames, total: None)

            def batched(folder: str = folder, table: Path = table) -> None:
                if joyavatar(["batch", str(table), "--out", f"{folder}/videos", *options]):
                    raise SystemExit("the batch failed")

            runs = [("speak", one_by_one), ("batch", batched)]
            for name, work in runs if repeat % 2 else reversed(runs):
                seconds = timed(work)
                if repeat:  # the first round fills caches
                    times[name].append(seconds)
    walls, processors = ({name: median(column) for name, column in pairs} for pairs in columns(times))
    print(f"{len(jobs)} videos of {args.seconds:g} s at {args.size}, medians of {args.repeats} runs")
    for name in times:
        print(f"{name}: {walls[name]:.2f} s wall, {processors[name]:.2f} s processor")
    ratio = processors["batch"] / processors["speak"]
    print(f"ratio {walls['batch'] / walls['speak']:.3f} wall, {ratio:.3f} processor (limit {LIMIT})")
    return int(ratio > LIMIT)


def columns(times: dict[str, list[tuple[float, float]]]) -> list[list[tuple[str, list[float]]]]:
    """[wall, processor] of (name, seconds of each repeat)."""
    return [[(name, [pair[which] for pair in pairs]) for name, pairs in times.items()] for which in (0, 1)]


if __name__ == "__main__":
    sys.exit(main())
