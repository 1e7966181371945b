"""One person in many expressions with the head held still: training data of the face editor.

The pictures are of the face alone, upright and of one size, as `FaceCrop` cuts it out of a portrait.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..framing.face_crop import FaceCrop
from ..paths import replacing
from .clips import figure_of, make_script
from .cutouts import face_points
from .dataset import clip_path
from .drawn.characters import generator
from .moment import Moment, MouthShape
from .motion import COLUMN

FIRST_SEED = 7000
COUNT = 9  # pictures of a person
STREAM = 10  # of a seed's random numbers
SIDE = 144  # pixels of a picture
MARGIN = 1.12  # the crop's side in sides of the editor's, so that training may move it
DRAWN_SIDE = 352  # pixels of the picture that a face is cut out of
SECONDS = 3.0  # of speech that mouth shapes are taken from
# The same in all pictures of a person: everything that the editor is not told.
HELD = ("yaw", "pitch", "roll", "x", "y", "breath", "squint", "lift", "worry", "smile")
MOUTH = slice(-len(MouthShape._fields), None)


class ExpressionSet(NamedTuple):
    """pictures [N, SIDE, SIDE, 3] uint8 and what drove them, moments [N, 20] float32, columns of `Moment`."""

    pictures: np.ndarray
    moments: np.ndarray


def expression_set(seed: int, split: str, people: str, count: int) -> ExpressionSet:
    """One person. Mouth shapes are those of its speech, as different from one another as they can be."""
    rng = generator(seed, split, STREAM)
    script = make_script(seed, split, SECONDS, people)
    moments = script.tracks[_apart(script.tracks[:, MOUTH], count, rng)].copy()
    columns = [COLUMN[name] for name in HELD]
    moments[:, columns] = moments[rng.integers(count), columns]
    closing = rng.random(count) < 0.35
    closing[0] = False
    lid = COLUMN["lid"]
    moments[:, lid] = np.where(closing, rng.choice([0.0, 0.0, 0.3, 0.6], count), np.maximum(moments[:, lid], 0.85))
    for name, spread in (("gaze_x", 0.3), ("gaze_y", 0.2)):
        moments[:, COLUMN[name]] += rng.normal(0, spread, count)
    figure = figure_of(script.character, DRAWN_SIDE)
    pictures, crop = [], None
    for row in moments:
        picture, labels = figure.draw(Moment(*map(float, row)))
        crop = crop or FaceCrop.of_points(*face_points(labels), scale=MARGIN)
        whole = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        pictures.append(crop.cut(whole, SIDE)[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    return ExpressionSet(np.ascontiguousarray(np.stack(pictures)), moments)


def write_expressions(folder: Path, people: int, workers: int = 2) -> list[Path]:
    """Expression sets of so many rendered people, and of a quarter as many drawn ones, in files; returns their paths.

    Those that exist are skipped. Raises AvatarError where people cannot be rendered.
    """
    from tqdm import tqdm

    from .rendered.studio import check_rendering

    check_rendering()
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(FIRST_SEED, FIRST_SEED + people)
    wanted = [(seed, kind) for seed in seeds for kind in ("rendered", "drawn") if kind == "rendered" or seed % 4 == 0]
    paths = [clip_path(folder, seed, "train", kind) for seed, kind in wanted]
    missing = [(*one, path) for one, path in zip(wanted, paths, strict=True) if not path.exists()]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for made in tqdm(as_completed([pool.submit(_write, *one) for one in missing]), "expressions", len(missing)):
            made.result()
    return paths


def _write(seed: int, people: str, path: Path) -> None:
    from safetensors.numpy import save_file

    made = expression_set(seed, "train", people, COUNT)
    with replacing(path, shared=True) as unfinished:
        save_file(made._asdict(), unfinished)


def _apart(shapes: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Rows [N, 7] that are far from one another: each next one has the largest distance to those before."""
    chosen = [int(rng.integers(len(shapes)))]
    distance = np.full(len(shapes), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(shapes - shapes[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return chosen
