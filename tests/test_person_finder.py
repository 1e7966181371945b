"""The person finder and what it is for: what is behind a person stays where it is while the head moves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.framing.person_finder import CELL, PersonFinder, person_finder
from joyavatar_core.refiner.head_movements import HeadPose
from joyavatar_core.refiner.still_background import StillBackground
from joyavatar_core.training.__main__ import main
from joyavatar_core.training.face_canvases import SIDE, Cutouts, face_of, portraits
from joyavatar_core.training.person_training import person_loss

SHEET = Path(__file__).parent / "people" / "cutouts.png"  # rendered and drawn people that no training has seen
POINTS = np.array(json.loads(SHEET.with_suffix(".json").read_text()), np.float32)  # eyes and chin of each


@pytest.fixture(scope="module")
def people() -> Cutouts:
    sheet = np.asarray(Image.open(SHEET).convert("RGBA")).astype(np.float32)
    sheet[..., :3] *= sheet[..., 3:] / 255
    one_each = torch.from_numpy(np.stack(np.split(sheet, len(POINTS), axis=1))).movedim(-1, 1)
    return Cutouts(one_each.round().byte().contiguous(), torch.from_numpy(POINTS))


@pytest.fixture(scope="module")
def canvases(people: Cutouts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scenes = torch.randint(256, (8, 3, 160, 160), generator=torch.Generator().manual_seed(0)).byte()
    scenes = torch.nn.functional.avg_pool2d(scenes.float(), 15, 1, 7).byte()
    return portraits(people, scenes, 24, torch.Generator().manual_seed(1))


def crop_of(face: torch.Tensor) -> FaceCrop:
    from joyavatar_core.framing.face_locator import Face

    return FaceCrop.of_face(Face(*face.tolist(), score=1.0))


def test_faces_of_canvases_are_in_the_people(people, canvases) -> None:
    _, faces, opacity = canvases
    assert opacity.shape == (24, 1, SIDE, SIDE) and face_of(people.points).shape == (len(POINTS), 4)
    for face, cover in zip(faces, opacity[:, 0], strict=True):
        x, y = face[:2].long().tolist()
        assert not (0 <= x < SIDE and 0 <= y < SIDE) or cover[y, x] > 0.9


@pytest.mark.parametrize(("size", "cells"), [((512, 512), (64, 64)), ((300, 500), (40, 64)), ((90, 30), (64, 24))])
def test_a_map_has_the_shape_of_its_picture(size, cells) -> None:
    found = PersonFinder().eval().find(torch.zeros(3, *size), FaceCrop(20, 20, 20, 0.0))
    assert found.shape == cells and found.min() >= 0 and found.max() <= 1


def test_the_finder_learns(canvases) -> None:
    torch.manual_seed(0)
    finder, losses = PersonFinder(), []
    optimizer = torch.optim.Adam(finder.parameters(), 3e-3)
    for _ in range(25):
        losses.append(person_loss(finder, *(part[:8] for part in canvases))["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_the_shipped_finder_finds_people_before_backgrounds_it_has_not_seen(canvases) -> None:
    overlaps = []
    for picture, face, opacity in zip(*canvases, strict=True):
        found = person_finder().find(picture, crop_of(face)) > 0.5
        true = torch.nn.functional.avg_pool2d(opacity, CELL)[0] > 0.5
        overlaps.append(float((found & true).sum() / (found | true).sum().clamp(min=1)))
    assert np.median(overlaps) > 0.88 and np.mean(overlaps) > 0.82, np.round(overlaps, 2)


def test_movement_ends_behind_the_person(canvases) -> None:
    k = int((canvases[1][:, 2] - 40).abs().argmin())
    picture, face, opacity = (part[k] for part in canvases)
    still = StillBackground(picture, crop_of(face))
    moved = still(torch.full((2, 2, 64, 64), 0.02))
    x, y = (face[:2] / 2).long().tolist()
    torch.testing.assert_close(moved[:, :, y, x], torch.full((2, 2), 0.02))
    near = torch.nn.functional.max_pool2d(opacity[None], 81, 1, 40)[0, 0]
    behind = torch.nn.functional.avg_pool2d(near[None], 2)[0] == 0
    assert behind.any() and moved[:, :, behind].abs().max() < 0.004


@pytest.mark.parametrize("motion", [0.0, 1.0, 3.0])
def test_what_is_behind_is_not_folded(motion: float, monkeypatch) -> None:
    """A place further to the right is sampled from further to the right, for movements three deviations large."""
    monkeypatch.setattr(PersonFinder, "find", lambda *_: torch.zeros(64, 64))  # the face alone moves
    crop = FaceCrop(128, 110, 90, 0.0)
    far = 3 * HeadPose().x * max(motion, 1) * crop.side / 256  # in halves of the picture's side
    still = StillBackground(torch.zeros(3, 256, 256), crop, motion=motion)
    flow = still(torch.tensor([far, 0.0])[None, :, None, None].expand(1, -1, 256, 256))[:, 0]
    assert flow.max() > 0.95 * far and (2 / 256 + flow.diff(dim=-1)).min() > 0


def test_the_face_moves_where_nobody_is_found(monkeypatch) -> None:
    empty = torch.zeros(64, 64)
    monkeypatch.setattr(PersonFinder, "find", lambda *_: empty)
    moves = StillBackground(torch.zeros(3, 256, 256), FaceCrop(128, 110, 90, 0.0)).moves
    assert moves[0, 0, 55, 64] == 1 and moves[0, 0, 0].max() == 0


def test_one_command_trains_it(tmp_path, people) -> None:
    for package in ("skia", "scipy", "skimage"):  # of the backgrounds
        pytest.importorskip(package)
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for kind in ("drawn", "rendered"):  # what would be rendered is there already
        save_file(vars(people), folder / f"{kind}-train-000000-1.safetensors")
    assert main(["person", "--people", "1", "--steps", "2", "--batch", "4", "--runs", str(tmp_path)]) == 0
    weights = load_file(tmp_path / "person_finder.safetensors")
    assert set(weights) == set(PersonFinder().state_dict())
