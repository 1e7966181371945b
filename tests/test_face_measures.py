"""What the judge reads from landmarks and pixels, on faces whose figures are known; mediapipe is not needed."""

import numpy as np
import pytest

from joyavatar_core.evaluation import face_measures as measures
from joyavatar_core.evaluation.face_mesh import POINTS, RIGID
from joyavatar_core.evaluation.talking_judge import follow, mouth_signals

EYE, MOUTH = 100.0, 82.0  # pixels: between the outer corners of the eyes, from there to the mouth
T = 60


def face(gap: np.ndarray, turn: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Landmarks [T, 478, 3] of an upright face at (128, 100) whose lips are `gap` [T] pixels apart."""
    rng = np.random.default_rng(0)
    points = np.tile(rng.uniform(-60, 60, (POINTS, 3)), (len(gap), 1, 1))
    points[:, 33], points[:, 263] = (-EYE / 2, 0, 0), (EYE / 2, 0, 0)
    points[:, 133], points[:, 362] = (-15, 0, 0), (15, 0, 0)
    points[:, 10], points[:, 2], points[:, 152] = (0, -60, 0), (0, 50, 0), (0, 120, 0)
    points[:, 234], points[:, 454] = (-70, 10, 0), (70, 10, 0)
    for (upper, lower), x in zip(measures.INNER_LIPS, (0, -8, 8), strict=True):
        points[:, upper] = (x, MOUTH, 0)
        points[:, lower, 0], points[:, lower, 1], points[:, lower, 2] = x, MOUTH + gap, 0
    points[:, 61], points[:, 291] = (-25, MOUTH, 0), (25, MOUTH, 0)
    for upper, lower in measures.LIDS:
        points[:, upper], points[:, lower] = (0, -5, 0), (0, 5.5, 0)
    cos, sin = np.cos(turn), np.sin(turn)
    points[..., :2] = points[..., :2] @ np.array([[cos, sin], [-sin, cos]])
    points *= scale
    points[..., :2] += (128 + shift, 100)
    return points.astype(np.float32)


def frames(gap: np.ndarray) -> np.ndarray:
    """Pictures of that face: skin, and the dark between the lips."""
    video = np.full((len(gap), 256, 256, 3), (200, 150, 130), np.uint8)
    for frame, height in zip(video, gap, strict=True):
        frame[round(100 + MOUTH) : round(100 + MOUTH + height), 108:148] = (28, 2, 9)
    return video


GAP = 8 + 8 * np.sin(np.arange(T) / 3)


@pytest.mark.parametrize("pose", [{}, {"turn": 0.3}, {"scale": 0.5}, {"shift": 20}])
def test_lengths_do_not_depend_on_place_size_and_turn(pose):
    points = face(GAP, **pose)
    assert np.allclose(measures.lip_gap(points), GAP / EYE, atol=1e-4)
    assert np.allclose(measures.mouth_width(points), 0.5, atol=1e-4)
    assert np.allclose(measures.lid_opening(points), 10.5 / 35, atol=1e-3)
    assert np.allclose(measures.jaw_drop(points), 0.7, atol=1e-4)
    assert np.allclose(measures.head_pose(points)[:, 2], pose.get("turn", 0), atol=1e-4)


def test_all_four_signals_of_the_mouth_follow_a_mouth_that_opens():
    signals = mouth_signals(frames(GAP), face(GAP))
    for name in ("lip_gap", "inner_mouth", "darkness"):
        assert follow(signals[name], GAP)["r"] > 0.95, name
    assert follow(signals["jaw_drop"], GAP)["r"] == 0  # this face's chin does not move


def test_pixels_tell_of_a_still_mouth_that_landmarks_deny():
    signals = mouth_signals(frames(np.full(T, 6.0)), face(GAP))
    assert follow(signals["lip_gap"], GAP)["r"] > 0.99
    assert abs(follow(signals["darkness"], GAP)["r"]) < 0.2


@pytest.mark.parametrize("late", [-3, 0, 4])
def test_the_lag_of_a_late_picture_is_positive(late):
    track = np.random.default_rng(1).normal(size=200)
    found = follow(np.roll(track, late), track)
    assert found["lag"] == late and found["best_r"] > 0.99


def test_frames_without_a_face_are_left_out():
    points = face(GAP)
    points[10:20] = np.nan
    signals = mouth_signals(frames(GAP), points)
    assert np.isnan(signals["lip_gap"][10:20]).all()
    assert follow(signals["lip_gap"], GAP)["r"] > 0.99


def test_a_face_is_held_still_by_its_rigid_points():
    points = face(np.zeros(4))
    points[1:, :, 0] += np.array([5, 10, 15])[:, None]
    video = np.full((4, 256, 256, 3), 120, np.uint8)
    for k, frame in enumerate(video):
        frame[:, 128 + 5 * k :] = 220
    patches = measures.mouth_patches(video, points)
    assert np.abs(patches - patches[0]).max() < 1
    assert len(set(RIGID)) == len(RIGID)


def test_shapes_do_not_tell_a_face_from_itself_turned_or_enlarged():
    same = measures.face_shape(np.concatenate([face(GAP[:1]), face(GAP[:1], turn=0.4, scale=2.0)]))
    assert np.linalg.norm(same[0] - same[1]) < 1e-3


def test_blur_lowers_the_sharpness_of_the_eyes():
    from scipy.ndimage import gaussian_filter

    video = np.random.default_rng(2).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    video[1] = gaussian_filter(video[0].astype(float), (2, 2, 0)).astype(np.uint8)
    sharp, soft = measures.sharpness_around_eyes(video, face(GAP[:2]))
    assert soft < 0.3 * sharp
