"""The head of refined frames: its movements depend on the frame's number and the voice, and only the head moves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.refiner.gestures import NODS, RAISED_BROWS, Gesture, gesture_shape, gestures
from joyavatar_core.refiner.head_movements import BROWS, DEVIATIONS, FASTEST, NOD, WAVES, HeadMovements, HeadPose
from joyavatar_core.refiner.head_turn import HeadTurn
from joyavatar_core.refiner.model import Prediction

SIDE = 128
CROP = FaceCrop(64.0, 56.0, 50.0, 0.0)


def test_movements_depend_on_seed_and_frame_alone() -> None:
    head = HeadMovements(seed=5, fps=16)
    whole = head(0, 16 * 60)
    torch.testing.assert_close(head(400, 300), whole[400:700], rtol=0, atol=0)
    assert not torch.equal(HeadMovements(seed=6, fps=16)(0, 160), whole[:160])
    assert head(10**9, 4).isfinite().all()
    assert not HeadMovements(seed=5, fps=16, size=0)(0, 160).any()


@pytest.mark.parametrize("fps", [16, 25])
def test_movements_are_as_large_as_announced_and_smooth(fps: int) -> None:
    tracks = torch.cat([HeadMovements(seed, fps)(0, fps * 300) for seed in range(8)]) / torch.tensor(DEVIATIONS)
    assert (tracks.std(0) - 1).abs().max() < 0.15 and tracks.mean(0).abs().max() < 0.15
    one = HeadMovements(3, fps)(0, fps * 60) / torch.tensor(DEVIATIONS)
    most = (2 * WAVES) ** 0.5  # of a sum of sines with a deviation of 1
    assert one.abs().max() < most
    assert fps * one.diff(dim=0).abs().max() < 2 * math.pi * FASTEST * most


def stressed(*frames: int, count: int = 80) -> torch.Tensor:
    """The loudness of a voice with a stress at some frames."""
    loud = torch.full((count,), -1.5)
    for frame in frames:
        loud[frame : frame + 3] = 1.0
    return loud


def test_nods_follow_stresses_and_nothing_else() -> None:
    assert not gestures(NODS, stressed(), 0, 0, 80, 16).any()
    moved = torch.stack([gestures(NODS, stressed(40), seed, 0, 80, 16) for seed in range(40)])
    assert not moved[:, :40].any() and not moved[:, 55:].any()
    most = moved.abs().amax(1)
    assert most.max() > 0.8 and most.min() < 0.1  # some stresses are not nodded to
    assert 0.6 < (moved.sum(1) > 0).float().mean() < 0.95  # most nods go down
    at = moved.abs().argmax(1)
    assert ((at > 41) & (at < 47)).all()  # 0.1 to 0.4 s after the stress


def test_brows_rise_on_some_stresses() -> None:
    assert not gestures(RAISED_BROWS, stressed(), 0, 0, 80, 16).any()
    moved = torch.stack([gestures(RAISED_BROWS, stressed(40), seed, 0, 80, 16) for seed in range(60)])
    assert moved.min() >= 0 and not moved[:, :40].any() and not moved[:, 55:].any()
    assert 0.3 < (moved.amax(1) > 0).float().mean() < 0.7


@pytest.mark.parametrize("kind", [NODS, RAISED_BROWS])
def test_gestures_of_blocks_are_those_of_the_whole_voice(kind: Gesture) -> None:
    loud = torch.randn(93, generator=torch.Generator().manual_seed(0))
    whole = gestures(kind, loud, 3, 0, 93, 16)
    starts = [0, *range(9, 93, 12)]

    def part(k: int) -> torch.Tensor:
        return gestures(kind, loud[max(0, k - 12) : k + 12][: None if k else 9], 3, k, 12 if k else 9, 16)

    parts = [part(k) for k in starts]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)  # sums of other lengths round otherwise
    assert 1 + len(gesture_shape(kind, 16)) <= 12  # what a block knows of the one before is enough


def test_a_head_nods_on_top_of_its_slow_movements() -> None:
    head, loud = HeadMovements(seed=0, fps=16, size=0.5), stressed(10, 40, 60)
    extra = head(0, 80, loud) - head(0, 80)
    expected = 0.5 * gestures(NODS, loud, 0, 0, 80, 16)[:, None] * torch.tensor(NOD)
    torch.testing.assert_close(extra, expected, atol=1e-6, rtol=0)
    raised = 0.5 * BROWS * gestures(RAISED_BROWS, loud, 0, 0, 80, 16)
    torch.testing.assert_close(head.brows(0, 80, loud), raised, atol=1e-6, rtol=0)


@pytest.fixture
def turn() -> HeadTurn:
    return HeadTurn(CROP, torch.zeros(1, 3, SIDE, SIDE))


def turned(turn: HeadTurn, picture: torch.Tensor, **pose: float) -> torch.Tensor:
    """The frame [1, 3, SIDE, SIDE] with the head in a pose."""
    still = Prediction(torch.zeros(1, 2, 32, 32), torch.ones(1, 1, 64, 64), torch.zeros(1, 3, 64, 64))
    poses = torch.tensor([HeadPose(**(dict.fromkeys(HeadPose._fields, 0.0) | pose))])
    return turn(still, picture, poses)[1]


def test_a_pose_of_zero_changes_nothing(turn: HeadTurn) -> None:
    picture = torch.rand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(turned(turn, picture), picture, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("pose", "across", "down"), [("x", 1, 0), ("y", 0, 1), ("yaw", 1, 0), ("pitch", 0, 1)])
def test_the_head_moves_to_where_the_pose_says(turn: HeadTurn, pose: str, across: int, down: int) -> None:
    place = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")).float()
    spot = torch.exp(-((place[0] - CROP.x) ** 2 + (place[1] - CROP.y + 10) ** 2) / 50).expand(1, 3, -1, -1)
    moved = turned(turn, spot, **{pose: 0.2})[0, 0]
    far = 0.2 * CROP.side / 2
    found = [float((axis * moved).sum() / moved.sum()) for axis in place]
    assert found == pytest.approx([CROP.x + far * across, CROP.y - 10 + far * down], abs=0.7)


def test_the_head_turns_about_its_neck_and_what_is_far_stays(turn: HeadTurn) -> None:
    picture = F.interpolate(torch.rand(1, 3, 16, 16), (SIDE, SIDE), mode="bicubic", align_corners=False)
    moved = turned(turn, picture, roll=0.1, x=0.1)
    changed = (moved - picture).abs().amax((0, 1))
    assert changed[20:80, 40:90].mean() > 0.05
    assert changed[-12:].max() < 1e-4 and changed[:, :2].max() < 0.02 and changed[:, -2:].max() < 0.02
    leaning = turn.shift(torch.tensor([[0, 0, 0.1, 0, 0]]))[0, 0]
    assert leaning[16, 32] < 0 < -leaning[16, 32]  # clockwise: above the neck everything goes to the right


def test_maps_turn_with_the_frame(turn: HeadTurn) -> None:
    mask = F.interpolate(torch.rand(1, 1, 8, 8), (SIDE, SIDE), mode="bilinear", align_corners=False)
    predicted = Prediction(torch.full((1, 2, 64, 64), 0.25), mask, mask.expand(-1, 3, -1, -1))
    poses = torch.tensor([[0.2, 0.1, 0.05, 0.1, 0.1]])
    made, frames = turn(predicted, mask.expand(-1, 3, -1, -1), poses)
    torch.testing.assert_close(made.residual, frames)
    torch.testing.assert_close(made.mask, frames[:, :1])
    torch.testing.assert_close(made.flow, 0.25 + turn.shift(poses), atol=1e-5, rtol=0)


def test_a_turning_head_folds_nothing(turn: HeadTurn) -> None:
    """A place further to the right is sampled from further to the right, also at the rim of the head."""
    shift = turn.shift(torch.tensor([[0, 0, 0, 0.3, 0.0]]))[0, 0]
    assert shift.abs().max() > 0.05
    assert (2 / shift.shape[-1] + shift.diff(dim=-1)).min() > 0.4 * 2 / shift.shape[-1]
