"""Clips on disk: one safetensors file each, written by several processes, resumable after a kill."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from ..errors import AvatarError
from .clips import SAMPLE_RATE, Clip, make_clip

RECIPE = 3  # raise it whenever the same seed would give other pixels or samples
DESCRIPTION = "dataset.json"


def clip_path(folder: Path | str, seed: int, split: str) -> Path:
    """Where the clip of a seed is kept."""
    return Path(folder) / f"{split}-{seed:07d}.safetensors"


def save_clip(path: Path, clip: Clip) -> None:
    """Write a clip at once or not at all."""
    from safetensors.numpy import save_file

    arrays = {k: v for k, v in dataclasses.asdict(clip).items() if isinstance(v, np.ndarray)}
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays, partial, metadata={"fps": str(clip.fps), "sample_rate": str(clip.sample_rate)})
    partial.replace(path)


def load_clip(path: Path | str, first: int = 0, frames: int | None = None) -> Clip:
    """A clip, or `frames` of its frames from `first` on: only these are read, and the sound is cut to them."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
        fps, sample_rate = int(meta["fps"]), int(meta["sample_rate"])
        last = file.get_slice("frames").get_shape()[0] if frames is None else first + frames
        sound = slice(first * sample_rate // fps, last * sample_rate // fps)
        cut = {name: file.get_slice(name)[first:last] for name in ("frames", "mouth", "box")}
        return Clip(
            waveform=file.get_slice("waveform")[sound],
            portrait=file.get_tensor("portrait"),
            sample_rate=sample_rate,
            fps=fps,
            **cut,
        )


def _make(folder: str, seed: int, split: str, seconds: float, size: int) -> None:
    save_clip(clip_path(folder, seed, split), make_clip(seed, split, seconds, size))


def write_dataset(
    folder: Path | str,
    count: int,
    seed: int = 0,
    split: str = "train",
    seconds: float = 7.0,
    workers: int = 2,
    size: int = 128,
) -> list[Path]:
    """Make the clips of `count` seeds from `seed` on, skipping those that exist; returns all their paths.

    Raises AvatarError if the folder holds clips of another recipe, length or size.
    """
    from tqdm import tqdm

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"recipe": RECIPE, "seconds": seconds, "size": size, "sample_rate": SAMPLE_RATE}
    note = folder / DESCRIPTION
    if not note.exists():
        note.write_text(json.dumps(description))
    elif (found := json.loads(note.read_text())) != description:
        raise AvatarError(f"{folder} holds clips of {found}, expected {description}; choose an empty folder")
    paths = [clip_path(folder, k, split) for k in range(seed, seed + count)]
    missing = [k for k, path in zip(range(seed, seed + count), paths, strict=True) if not path.exists()]
    # Processes start afresh: forking one that holds torch's threads can hang.
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        tqdm(total=count, initial=count - len(missing), unit="clip", desc=split) as bar,
    ):
        for done in as_completed([pool.submit(_make, str(folder), k, split, seconds, size) for k in missing]):
            done.result()
            bar.update()
    return paths


def clips(paths: list[Path]) -> Iterator[Clip]:
    """The clips of the given files, one after another."""
    return map(load_clip, paths)
