"""An hour of speech through ``joyavatar speak --state``: memory, time per block, and how sound and picture end.

The voice is espeak-ng reading changing sentences, joined to an hour in a temporary file. The command runs as a process
of its own at 32 x 32 pixels; it is watched from outside: resident memory whenever a state has been written, processor
time (not wall time, which other programs change) per block between the states. A contact sheet shows the first minute,
the last, and some between. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from joyavatar_core.evaluation.sheet import contact_sheet

ROOT = Path(__file__).parents[1]
PORTRAIT = ROOT / "joyavatar_core/assets/portraits/ada.png"
PARTS = [  # a sentence is one of each
    ["The river", "My neighbour", "A violin", "This old bridge", "The morning train", "Nobody here", "Her letter"],
    ["remembers", "has forgotten", "slowly crosses", "explains", "cannot find", "would rather keep", "listens to"],
    ["the quiet harbour", "seven green apples", "every word of it", "a box of photographs", "the road to the north"],
    ["before the rain.", "and laughs.", "while we wait?", "as if nothing had happened.", "at a quarter past five."],
]


def make_voice(path: Path, seconds: float, seed: int = 0) -> None:
    """A wav of espeak-ng speech, sentence after sentence, no two clips alike; written as it is made."""
    dice, left = random.Random(seed), None
    with tempfile.TemporaryDirectory() as folder, wave.open(str(path), "wb") as out:
        while left is None or left > 0:
            text = " ".join(" ".join(map(dice.choice, PARTS)) for _ in range(12))  # about half a minute
            clip = Path(folder) / "clip.wav"
            voice = ["-v", dice.choice(["en", "en-us", "de", "fr", "en-gb-x-rp"]), "-s", str(dice.randrange(130, 190))]
            subprocess.run(["espeak-ng", *voice, "-p", str(dice.randrange(30, 70)), "-w", clip, text], check=True)
            with wave.open(str(clip), "rb") as part:
                if left is None:
                    out.setparams(part.getparams())
                    left = round(seconds * part.getframerate())
                count = min(left, part.getnframes())
                out.writeframes(part.readframes(count))
                left -= count


def status(process: int) -> tuple[int, float] | None:
    """Resident bytes and processor seconds so far of a process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        resident = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, IndexError):
        return None
    return resident, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(child: subprocess.Popen, state: Path) -> tuple[list[tuple[int, int, float]], int]:
    """(blocks recorded, resident bytes, processor seconds) at every new state; the most bytes seen after the last."""
    marks: list[tuple[int, int, float]] = []
    joining = 0
    while child.poll() is None:
        names = [path.name for path in state.glob("state-????????.safetensors")]
        block = int(max(names)[6:14]) if names else 0
        now = status(child.pid)
        if now and names and (not marks or block > marks[-1][0]):
            marks.append((block, *now))
            joining = 0
        joining = max(joining, now[0] if now else 0)
        time.sleep(0.02)
    return marks, joining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--size", default="32x32")
    parser.add_argument("--out", type=Path, help="keep the video here")
    parser.add_argument("--sheet", type=Path, help="a contact sheet, *.png")
    parser.add_argument("--speak", nargs=argparse.REMAINDER, default=[], help="further flags of speak, last")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        voice, out, state = place / "voice.wav", args.out or place / "v.mp4", place / "state"
        make_voice(voice, 60 * args.minutes)
        command = [sys.executable, "-m", "joyavatar_core", "speak", "--portrait", PORTRAIT, "--audio",
                   voice, "--out", out, "--size", args.size, "--state", state, *args.speak]  # fmt: skip
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        started = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)), cwd=ROOT, env={**os.environ, **threads})
        marks, joining = watch(child, state)
        if child.returncode:
            sys.exit(f"speak ended with code {child.returncode}")
        disk = sum(path.stat().st_size for path in state.iterdir())
        print(f"{time.perf_counter() - started:.0f} s of wall time, {disk / 1e6:.1f} MB in the state folder")
        report_ends(out)
        if args.sheet:
            minutes = [args.minutes * part / 4 for part in range(5)]
            contact_sheet([pictures(out, max(0.0, 60 * minute - 10)) for minute in minutes], args.sheet, 10, scale=3)
        report_memory(marks, joining, args.minutes)
        report_time(marks)


def pictures(path: Path, start: float, seconds: float = 10.0) -> np.ndarray:
    """Frames [N, H, W, 3] of so many seconds from a moment on."""
    frames = []
    with av.open(str(path)) as video:
        video.seek(int(start / video.streams.video[0].time_base), stream=video.streams.video[0])
        for frame in video.decode(video=0):
            if start <= frame.time < start + seconds:
                frames.append(frame.to_ndarray(format="rgb24"))
            elif frames:
                break
    return np.stack(frames)


def report_ends(out: Path) -> None:
    with av.open(str(out)) as video:
        tracks = video.streams.video[0], video.streams.audio[0]
        picture, sound = (float(track.duration * track.time_base) for track in tracks)
        print(f"{tracks[0].frames} frames; picture {picture:.4f} s, sound {sound:.4f} s, "
              f"difference {abs(picture - sound) * float(tracks[0].average_rate):.3f} frames")  # fmt: skip


def report_memory(marks: list[tuple[int, int, float]], joining: int, minutes: float) -> None:
    early = min(5.0, minutes / 2)
    _, before, _ = min(marks, key=lambda mark: abs(mark[0] - marks[-1][0] * early / minutes))
    after, most = marks[-1][1], max(resident for _, resident, _ in marks)
    print(f"resident after {early:g} minutes {before / 1e6:.1f} MB, at the end {after / 1e6:.1f} MB "
          f"({(after - before) / 1e6:+.1f}), most on the way {most / 1e6:.1f} MB, "
          f"most while the file is joined {joining / 1e6:.1f} MB ({(joining - before) / 1e6:+.1f})")  # fmt: skip


def report_time(marks: list[tuple[int, int, float]]) -> None:
    """The first segment is left out: it has more steps a block and loads what is loaded once."""
    costs = [(after[2] - before[2]) / (after[0] - before[0]) for before, after in pairwise(marks[1:])]
    size = max(1, len(costs) // 5)
    fifths = [statistics.median(costs[start : start + size]) for start in range(0, 5 * size, size)]
    print("processor time per block, median of each fifth: " + ", ".join(f"{1e3 * part:.2f}" for part in fifths)
          + f" ms; last over first {fifths[-1] / fifths[0]:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
