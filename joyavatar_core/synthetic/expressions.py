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
from .motion import COLUMN, EYES_STAY

FIRST_SEED = 7000
COUNT = 9  # pictures of a person
STREAM = 10  # of a seed's random numbers
SIDE = 288  # pixels of a picture
MARGIN = 1.12  # the crop's side in sides of the editor's, so that training may move it
DRAWN_SIDE = 472  # pixels of the picture that a face is cut out of
SECONDS = 3.0  # of speech that mouth shapes are taken from
SMILES = 3  # further pictures of a person, with a smile for a camera
SMILING = 0.6  # share of people who smile
SIZES = (0.4, 1.2)  # of a smile
LEAST = 0.6  # times its size: what each part of a smile has at least
LEFT, TEETH_LEFT = (0.3, 0.6), 0.2  # times its size: how much of it, and of its teeth, is left while a person talks
TURN = 0.2  # radians: standard deviation of a further turn of the head
# The same in all pictures of a person: everything that the editor is not told.
HELD = ("yaw", "pitch", "roll", "x", "y", "breath", "squint", "worry", "smile")
MOUTH = slice(-len(MouthShape._fields), None)


class ExpressionSet(NamedTuple):
    """pictures [N, SIDE, SIDE, 3] uint8 and what drove them, moments [N, 20] float32, columns of `Moment`.

    The last SMILES pictures are smiles for a camera, which talking faces do not have: portraits, never targets.
    """

    pictures: np.ndarray
    moments: np.ndarray


def expression_set(seed: int, split: str, people: str, count: int) -> ExpressionSet:
    """One person: `count` moments of talk and SMILES smiles."""
    rng = generator(seed, split, STREAM)
    script = make_script(seed, split, SECONDS, people)
    talk = _talk(script.tracks, count, rng)
    smile = rng.uniform(*SIZES) if rng.random() < SMILING else 0.0
    smiles = _smiles(talk[rng.integers(count, size=SMILES)], smile, rng)
    talk[:, COLUMN["smile"]] = np.clip(talk[0, COLUMN["smile"]], LEFT[0] * smile, LEFT[1] * min(smile, 1))
    figure = figure_of(script.character, DRAWN_SIDE)
    pictures, crop = [], None
    for k, row in enumerate((*talk, *smiles)):
        if people == "rendered":
            from .rendered.expression import CHEEKS

            shown = smile if k >= count else TEETH_LEFT * smile
            relaxed = smiles[0, COLUMN["smile"]] - row[COLUMN["smile"]], smile - shown
            cheeks = float(np.dot(CHEEKS, relaxed))  # they stay raised, and the eyes stay as they are
            figure.rest = script.character.rest._replace(teeth=shown, cheeks=cheeks)
        picture, labels = figure.draw(Moment(*map(float, row)))
        crop = crop or FaceCrop.of_points(*face_points(labels), scale=MARGIN)
        whole = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        pictures.append(crop.cut(whole, SIDE)[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    return ExpressionSet(np.ascontiguousarray(np.stack(pictures)), np.concatenate([talk, smiles]))


def _talk(tracks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Moments [count, 20] of a track, the head held still. Mouth shapes are as different as they can be."""
    talk = tracks[_apart(tracks[:, MOUTH], count, rng)].copy()
    columns = [COLUMN[name] for name in HELD]
    talk[:, columns] = talk[rng.integers(count), columns]
    closing = rng.random(count) < 0.35
    closing[0] = False
    lid = COLUMN["lid"]
    talk[:, lid] = np.where(closing, rng.choice([0.0, 0.0, 0.3, 0.6], count), np.maximum(talk[:, lid], 0.85))
    turn = rng.normal(0, TURN)
    talk[:, COLUMN["yaw"]] += turn
    talk[:, COLUMN["gaze_x"]] -= EYES_STAY * turn
    for name, spread in (("gaze_x", 0.3), ("gaze_y", 0.2), ("lift", 0.35)):
        talk[:, COLUMN[name]] += rng.normal(0, spread, count)
    talk[:, COLUMN["lift"]] = talk[:, COLUMN["lift"]].clip(-0.6, 1.1)
    return talk


def _smiles(rows: np.ndarray, smile: float, rng: np.random.Generator) -> np.ndarray:
    """Moments [N, 20] with the mouth of a smile of this size; without one, at rest."""
    rows = rows.copy()
    rows[:, MOUTH] = 0
    rows[:, COLUMN["lid"]] = np.maximum(rows[:, COLUMN["lid"]], 0.85)
    for name, most in (("smile", 1.0), ("spread", 0.8), ("open", 0.35), ("teeth", 1.0)):
        least = 0.0 if name == "open" else LEAST * min(smile, 1)
        rows[:, COLUMN[name]] = rng.uniform(least, min(smile, 1), len(rows)) * most
    return rows


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
