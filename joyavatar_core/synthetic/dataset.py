"""Clips on disk: one safetensors file each, written by several processes, resumable after a kill.

Pictures are kept as JPEGs of high quality, one after another; everything else as it is.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import AvatarError
from ..paths import replacing
from .clips import Clip, make_clip
from .voices import SAMPLE_RATE

RECIPE = 6  # raise it whenever the same seed would give other pixels or samples
DESCRIPTION = "dataset.json"
QUALITY = 94  # of the JPEGs, colours at full resolution
PICTURES = ("frames", "portraits")
PER_FRAME = ("tracks", "mouth", "box", "eyes", "lids", "face", "pose")


def clip_path(folder: Path | str, seed: int, split: str, people: str = "drawn") -> Path:
    """Where the clip of a seed is kept."""
    return Path(folder) / f"{split}-{seed:07d}-{people}.safetensors"


def save_clip(path: Path, clip: Clip) -> None:
    """Write a clip atomically."""
    from safetensors.numpy import save_file

    arrays = {k: v for k, v in dataclasses.asdict(clip).items() if isinstance(v, np.ndarray)}
    for name in PICTURES:
        files = [_compress(picture) for picture in arrays.pop(name)]
        arrays[name] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{name}_end"] = np.cumsum([len(file) for file in files])
    with replacing(path, shared=True) as unfinished:
        save_file(arrays, unfinished, metadata={"fps": str(clip.fps), "sample_rate": str(clip.sample_rate)})


def load_clip(path: Path | str, first: int = 0, frames: int | None = None) -> Clip:
    """A clip, or `frames` of its frames from `first` on: only these are read, and the sound is cut to them."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
        fps, sample_rate = int(meta["fps"]), int(meta["sample_rate"])
        last = clip_frames(path) if frames is None else first + frames
        sound = slice(first * sample_rate // fps, last * sample_rate // fps)
        cut = {name: file.get_slice(name)[first:last] for name in PER_FRAME}
        return Clip(
            waveform=file.get_slice("waveform")[sound], sample_rate=sample_rate, fps=fps,
            frames=_pictures(file, "frames", first, last), portraits=_pictures(file, "portraits", 0, None), **cut,
        )  # fmt: skip


def clip_frames(path: Path | str) -> int:
    """How many frames a clip has; nothing else is read."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.get_slice("frames_end").get_shape()[0]


def load_pictures(path: Path | str, name: str, first: int, last: int) -> np.ndarray:
    """Some `frames` or `portraits` of a clip, [N, S, S, 3] uint8; nothing else is read."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return _pictures(file, name, first, last)


def _compress(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _pictures(file, name: str, first: int, last: int | None) -> np.ndarray:
    """[N, S, S, 3] uint8: those from `first` to `last` of an open file."""
    ends = [0, *map(int, file.get_tensor(f"{name}_end"))]
    ends = ends[first : None if last is None else last + 1]
    data = file.get_slice(name)[ends[0] : ends[-1]].tobytes()
    parts = (data[a - ends[0] : b - ends[0]] for a, b in itertools.pairwise(ends))
    return np.stack([np.asarray(Image.open(io.BytesIO(part))) for part in parts])


def _make(folder: str, seed: int, split: str, people: str, seconds: float, size: int) -> None:
    save_clip(clip_path(folder, seed, split, people), make_clip(seed, split, seconds, size, people))


def write_dataset(
    folder: Path | str,
    count: int,
    seed: int = 0,
    split: str = "train",
    seconds: float = 7.0,
    workers: int = 2,
    size: int = 128,
    people: tuple[str, ...] = ("drawn",),
) -> list[Path]:
    """Make the clips of `count` seeds from `seed` on of each kind of people; returns all their paths.

    Those that exist are skipped. Raises AvatarError if the folder holds clips of another recipe, length or size, or
    if people cannot be rendered here.
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
    if "rendered" in people:
        from .rendered.studio import check_rendering

        check_rendering()
    wanted = [(k, split, kind) for k in range(seed, seed + count) for kind in people]
    paths = [clip_path(folder, *one) for one in wanted]
    missing = [one for one, path in zip(wanted, paths, strict=True) if not path.exists()]
    # Processes start afresh: forking one that holds torch's threads can hang.
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="clip", desc=split) as bar,
    ):
        for done in as_completed([pool.submit(_make, str(folder), *one, seconds, size) for one in missing]):
            done.result()
            bar.update()
    return paths


def clips(paths: list[Path]) -> Iterator[Clip]:
    """The clips of the given files, one after another."""
    return map(load_clip, paths)
