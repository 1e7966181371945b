"""Judging held-out people by landmarks: a video that follows the labels gets full marks. mediapipe is not needed."""

import numpy as np
import pytest

from joyavatar_core.evaluation.face_mesh import Landmarks
from joyavatar_core.evaluation.label_judge import LabelJudge
from joyavatar_core.evaluation.rollout import Truth

from .test_face_measures import GAP, T, face


class FakeMesh:
    """Landmarks of a face whose gap is the first pixel of each frame."""

    def __call__(self, frames: np.ndarray) -> Landmarks:
        points = face(frames[:, 0, 0, 0].astype(float))
        points[frames[:, 0, 0, 1] > 0] = np.nan  # no face
        return Landmarks(points, np.isfinite(points[:, 0, 0]))


def video(gap: np.ndarray) -> np.ndarray:
    frames = np.zeros((len(gap), 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0] = gap.round()
    return frames


@pytest.fixture
def judge() -> LabelJudge:
    flat = np.ones((T, 2), np.float32)
    truth = Truth(video(GAP), np.zeros((T, 4)), GAP, np.linspace(1, 2, T), flat, np.zeros(16000))
    return LabelJudge(truth, FakeMesh())


def test_the_truth_is_perfect(judge):
    found = judge.judge(video(GAP))
    assert found["gap_r"] == found["gap_r_truth"] > 0.99
    assert (found["lag"], found["found"], found["gap_size"]) == (0, 1.0, pytest.approx(1))


def test_half_the_movement_and_a_late_mouth_are_seen(judge):
    assert judge.judge(video(GAP / 2))["gap_size"] == pytest.approx(0.5, abs=0.05)
    assert judge.judge(video(np.roll(GAP, 2)))["lag"] == 2
    assert abs(judge.judge(video(np.full(T, 5.0)))["gap_r"]) < 0.1


def test_lips_that_do_not_close_are_seen(judge):
    assert judge.judge(video(GAP))["pressed"] < 0.05
    assert judge.judge(video(GAP / 2 + 8))["pressed"] > 0.4


def test_frames_without_a_face_count(judge):
    half = video(GAP)
    half[: T // 2, 0, 0, 1] = 1
    assert judge.judge(half)["found"] == 0.5
