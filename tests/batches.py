"""What the tests of batches share: a portrait, short voices, a table, and videos to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from joyavatar_core.cli import main
from joyavatar_core.recording.files import RecordingFolder

ROOT = Path(__file__).parents[1]
RATE = 16000
SMALL = ["--size=32x32", "--refine=off", "--psb=1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


def inputs(folder: Path, **seconds: float) -> Path:
    """A portrait and a voice of each name and length in seconds; returns the folder."""
    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    for number, (name, length) in enumerate(seconds.items()):
        t = np.arange(round(length * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * (150 + 20 * number) * t) * (np.sin(2 * np.pi * 3 * t) > 0)
        soundfile.write(folder / f"{name}.wav", wave, RATE)
    return folder


def spoken(folder: Path, voice: str, *more: str) -> Path:
    """The video that `speak` makes of a voice."""
    out = folder / f"{voice}-spoken.mp4"
    inputs_of = [f"--portrait={folder / 'portrait.png'}", f"--audio={folder / voice}.wav", f"--out={out}"]
    assert main(["speak", *inputs_of, *SMALL, *more]) == 0
    return out


def until_recorded(driver: subprocess.Popen, state: Path) -> bool:
    """Wait until a running batch has recorded a segment of a job and the state behind it.

    False where Ray, which waits 30 s for itself, has not started on a busy machine: then try again.
    """
    while not (state.is_dir() and max(RecordingFolder(state).states(), default=0)):
        if driver.poll() is not None:
            said = driver.communicate()[1]
            assert "Ray did not start in time" in said, said
            return False
        time.sleep(0.05)
    return True


def table(folder: Path, *rows: str, header: str = "portrait,voice") -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "joyavatar_core", *map(str, arguments)]


def process(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """`joyavatar` in a process group of its own, as a shell starts it; its output is piped."""
    return subprocess.Popen(
        command(*arguments), cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def statuses(out: Path) -> dict[str, str]:
    return {name: entry["status"] for name, entry in manifest(out)["jobs"].items()}
