"""Frames a second, set-up and memory of rendered people, beside drawn ones of the same size.

    python -m benchmarks.rendered_people --people 24 --size 256

Prints a markdown table; medians over people. Seconds are of the processor (all threads of this process), so that other
programs disturb them less; the software rasteriser runs on one thread. The limits are this project's: 15 frames a
second on one core, 500 MB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

from joyavatar_core.synthetic.clips import PEOPLE, figure_of, make_script
from joyavatar_core.synthetic.drawn.figure import Moment

LEAST_FRAMES, MOST_MEMORY = 15, 500  # a second, MB


def measure(people: str, count: int, size: int, frames: int) -> tuple[float, float, float]:
    """Median seconds of set-up and of a frame, and the slowest person's of a frame."""
    set_up, frame = [], []
    for seed in range(count + 1):  # the first one also loads what all of them share
        script = make_script(seed, "train", 2.0, people)
        start = time.process_time()
        figure = figure_of(script.character, size)
        ready = time.process_time()
        for row in script.tracks[:frames]:
            figure.draw(Moment(*map(float, row)))
        set_up.append(ready - start)
        frame.append((time.process_time() - ready) / min(frames, len(script.tracks)))
    return statistics.median(set_up[1:]), statistics.median(frame[1:]), max(frame[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=16, help="of each person")
    options = parser.parse_args()
    print(
        "| people | set-up, s | frames/s, median | frames/s, slowest | peak memory so far, MB |\n" + "| --- " * 5 + "|"
    )
    for people in PEOPLE:
        set_up, frame, slowest = measure(people, options.people, options.size, options.frames)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {people} | {set_up:.2f} | {1 / frame:.1f} | {1 / slowest:.1f} | {memory:.0f} |")
    speed, room = 1 / frame / LEAST_FRAMES, memory / MOST_MEMORY
    print(f"rendered people against the limits: {speed:.2f} of the speed, {room:.2f} of the memory")


if __name__ == "__main__":
    main()
