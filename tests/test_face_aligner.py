"""The face aligner: corrections undo what squares are off by, and the shipped weights put squares in their place."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from joyavatar_core.framing.face_aligner import (
    WEIGHTS,
    WIDER,
    FaceAligner,
    corrected,
    correction_of,
    face_aligner,
    wider,
)
from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.synthetic.clips import make_clip
from joyavatar_core.synthetic.dataset import clip_path, save_clip
from joyavatar_core.training.__main__ import main
from joyavatar_core.training.aligner_training import (
    MOST,
    MOVE,
    SQUARES,
    ZOOM,
    FaceSquares,
    aligner_errors,
    aligner_loss,
    train_aligner,
)
from joyavatar_core.training.loop import LoopSettings


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two drawn people."""
    folder, paths = tmp_path_factory.mktemp("clips"), []
    for seed in (3, 4):
        paths.append(clip_path(folder, seed, "held-out"))
        save_clip(paths[-1], make_clip(seed, "held-out", 0.5, 256))
    return paths


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


def test_a_correction_leads_to_the_face() -> None:
    true, given = FaceCrop(120.0, 90.0, 80.0, 0.2), FaceCrop(100.0, 95.0, 110.0, -0.3)
    found = corrected(wider(given), correction_of(wider(given), true))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(true), abs=1e-4)
    same = corrected(wider(given), correction_of(wider(given), given))
    assert dataclasses.astuple(same) == pytest.approx(dataclasses.astuple(given), abs=1e-4)


def test_an_untrained_aligner_changes_nothing() -> None:
    given = FaceCrop(100.0, 95.0, 110.0, -0.3)
    found = FaceAligner().align(torch.zeros(3, 200, 220), given)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(given), abs=1e-4)


def test_a_correction_that_is_too_large_is_not_believed() -> None:
    aligner, given = FaceAligner(), FaceCrop(100.0, 95.0, 110.0, 0.0)
    for bias in ([0.3, 0, 0, 0], [0, 0, 0.2, 0]):
        aligner.correction.bias.data = torch.tensor(bias)
        assert aligner.align(torch.zeros(3, 200, 220), given) is given
    aligner.correction.bias.data = torch.tensor([0.05, 0, 0, 0])
    assert aligner.align(torch.zeros(3, 200, 220), given).x > 105


def test_samples_are_squares_that_are_off_and_by_how_much(clips: list[Path]) -> None:
    (squares, corrections), again = FaceSquares(clips).batch(generators(6)), FaceSquares(clips).batch(generators(6))
    torch.testing.assert_close(squares, again[0], rtol=0, atol=0)
    assert squares.shape == (6 * SQUARES, 3, 64, 64) and corrections.shape == (6 * SQUARES, 4)
    assert 0.05 < corrections[:, 0].std() < MOVE and corrections[:, 2].abs().max() <= MOST * ZOOM + 1e-4
    assert corrections[:, :2].abs().max() < MOST * MOVE * 2**0.5 / WIDER * 1.6


def test_the_aligner_learns(clips: list[Path]) -> None:
    torch.manual_seed(0)
    aligner, batch = FaceAligner(), FaceSquares(clips).batch(generators(4))
    optimizer, losses = torch.optim.Adam(aligner.parameters(), 2e-3), []
    for _ in range(60):
        losses.append(aligner_loss(aligner, *batch)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_a_resumed_training_goes_on(clips: list[Path], tmp_path: Path) -> None:
    made = []

    class Counted(FaceSquares):
        def batch(self, generators):
            made.append(len(generators))
            return super().batch(generators)

    for steps in (1, 3):
        train_aligner(Counted(clips), LoopSettings(tmp_path, steps=steps, warmup=1), batch=2)
    assert made == [2, 2, 2]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_the_command_writes_weights_and_prints_errors(clips: list[Path], tmp_path: Path, capsys) -> None:
    for path, split in zip(clips, ("train", "held-out"), strict=True):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(path, clip_path(tmp_path / "data", 3, split))
    assert main(["aligner", "--runs", str(tmp_path), "--steps", "1", "--batch", "1"]) == 0
    errors = json.loads(capsys.readouterr().out)
    assert list(errors) == ["centre before", "size before", "roll before", "centre", "size", "roll"]
    assert set(load_file(tmp_path / "face_aligner.safetensors")) == set(FaceAligner().state_dict())


def test_the_shipped_aligner_puts_held_out_faces_in_their_place(clips: list[Path]) -> None:
    errors = aligner_errors(face_aligner(), clips * 10)
    assert errors["centre"] < 0.6 * errors["centre before"] and errors["size"] < 0.7 * errors["size before"]
    assert errors["roll"] < 0.6 * errors["roll before"]
    assert WEIGHTS.stat().st_size < 400_000
