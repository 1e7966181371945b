"""What the tests of batches share: a portrait, short voices, a table, and videos to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

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


def table(folder: Path, *rows: str, header: str = "portrait,voice") -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "joyavatar_core", *map(str, arguments)]


def process(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """`joyavatar` in a process of its own, its output piped."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command(*arguments), cwd=cwd, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def statuses(out: Path) -> dict[str, str]:
    return {name: entry["status"] for name, entry in manifest(out)["jobs"].items()}
