"""The drift monitor: quiet while a talking picture is healthy, and it names what goes wrong, early."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.monitoring.drift_monitor import DriftMonitor, Measures, mean_of
from joyavatar_core.monitoring.measures import colour_statistics, frame_loudness, laplacian, sample_places
from joyavatar_core.monitoring.observer import Observer
from joyavatar_core.monitoring.report import RunReport

FPS, SIDE, BLOCK = 16, 64, 12
RNG = np.random.default_rng(0)
TEXTURE = np.kron(RNG.integers(60, 180, (16, 16, 3)), np.ones((4, 4, 1))) + RNG.integers(-20, 20, (SIDE, SIDE, 3))


def speech(frames: int, seed: int = 1) -> np.ndarray:
    """A loudness envelope that rises and falls with syllables and pauses."""
    walk = np.random.default_rng(seed).standard_normal(frames + 4)
    return np.maximum(0, np.convolve(walk, np.ones(5) / 5, "valid")) * 0.2


def talking(start: int, count: int, loud: np.ndarray, lips: bool = True) -> np.ndarray:
    """A textured picture that sways a little; a mouth that opens with the loudness. uint8 [count, SIDE, SIDE, 3]."""
    frames = []
    for frame in range(start, start + count):
        picture = np.roll(TEXTURE, round(1.5 * np.sin(frame / 9)), axis=1).copy()
        opening = round(60 * loud[frame] * (1 if frame % 2 else 0.3)) if lips else 0
        picture[44 : 44 + min(opening, 14), 22:42] = 20
        frames.append(picture)
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def watch(seconds: float, spoil=lambda frames, at: frames, lips_until: float = 1e9, fps: int = FPS):
    """Run a monitor over a stream in which `spoil(frames, second)` changes what is seen."""
    monitor, total = DriftMonitor(fps), round(seconds * fps)
    loud, seen = speech(total + BLOCK), []
    for block, start in enumerate(range(0, total, BLOCK)):
        second = start / fps
        frames = talking(start, BLOCK, loud, lips=second < lips_until)
        frames = spoil(frames.astype(np.float32), second).clip(0, 255).astype(np.uint8)
        seen.append(monitor.update(block, frames, loud[start : start + BLOCK]))
    return monitor, seen


def blur(frames: np.ndarray, amount: float) -> np.ndarray:
    soft = sum(np.roll(frames, (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9
    return frames + (soft - frames) * amount


def spot(frames: np.ndarray, amount: float) -> np.ndarray:
    """A smear over one eye: 1 % of the picture."""
    smeared = frames.copy()
    smeared[:, 20:27, 16:23] += (230 - smeared[:, 20:27, 16:23]) * amount
    return smeared


def test_a_healthy_stream_gives_no_warning_and_a_mean_for_each_10_seconds():
    monitor, seen = watch(60)
    assert monitor.warnings == [] and len(monitor.history) == 5
    assert all(0.8 < m.sharpness < 1.2 and m.distance < 0.7 and m.colour < 6 for m in seen)
    assert all(m.correlation is None for m in seen[:12]) and seen[-1].correlation > 0.4


DRIFTS = {
    "colour": lambda frames, at: frames * np.array([1 + max(0, at - 20) / 60, 1, 1 - max(0, at - 20) / 90]),
    "sharpness": lambda frames, at: blur(frames, min(1, max(0, at - 20) / 30)),
    "patch": lambda frames, at: spot(frames, min(1, max(0, at - 20) / 30)),
    "distance": lambda frames, at: frames + (np.roll(frames, 24, axis=1) - frames) * min(1, max(0, at - 20) / 30),
}


@pytest.mark.parametrize("measure", DRIFTS)
def test_a_slow_drift_is_named_before_the_collapse(measure, caplog):
    monitor, _ = watch(50, DRIFTS[measure])
    first = next(warning for warning in monitor.warnings if warning.measure == measure)
    assert 20 < first.seconds < 45 and f"{first.seconds:.0f} s" in first.text
    assert f"drift at {first.text}" in caplog.text
    assert sum(warning.measure == measure for warning in monitor.warnings) == 1  # said once, not at every block


def test_grain_is_a_loss_too():
    noise = RNG.normal(0, 25, (SIDE, SIDE, 3))
    monitor, _ = watch(40, lambda frames, at: frames + noise * (at > 20))
    assert "sharpness" in {warning.measure for warning in monitor.warnings}


def test_lips_that_stop_following_the_voice_are_named():
    monitor, seen = watch(60, lips_until=25)
    assert {warning.measure for warning in monitor.warnings} == {"correlation"}
    assert monitor.warnings[0].seconds < 45 and (seen[-1].correlation or 0) < 0.2


def test_a_stream_whose_lips_never_followed_is_not_judged_by_them():
    monitor, _ = watch(40, lips_until=0)
    assert not monitor.warnings


def test_a_warning_comes_again_after_a_recovery():
    monitor, _ = watch(80, lambda frames, at: frames * (0.6 if 20 < at < 35 or at > 55 else 1.0))
    assert [warning.measure for warning in monitor.warnings].count("colour") == 2


def test_the_first_frame_itself_is_no_distance_away():
    monitor = DriftMonitor(FPS)
    first = monitor.update(0, talking(0, 1, np.zeros(1)))
    assert first.colour == 0 and abs(first.distance) < 1e-5 and first.sharpness == 1


def test_brightness_and_contrast_are_colour_not_structure():
    monitor = DriftMonitor(FPS)
    picture = talking(0, 1, np.zeros(1))
    monitor.update(0, picture)
    darker = monitor.update(1, (picture * 0.5 + 20).astype(np.uint8))
    assert darker.distance < 0.01 and darker.colour > 10


def test_colours_are_measured_in_cielab():
    red = colour_statistics(np.broadcast_to(np.array([1.0, 0, 0], np.float32), (1, 4, 4, 3)))
    assert np.allclose(red[:3], [53.2, 80.1, 67.2], atol=0.2) and np.allclose(red[3:], 0, atol=1e-3)
    white = colour_statistics(np.ones((1, 4, 4, 3), np.float32))
    assert np.allclose(white[:3], [100, 0, 0], atol=0.1)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 17, 400), (12, 32, 48), (2, 1080, 1920)])
def test_any_picture_size_is_measured(shape):
    frames = RNG.integers(0, 256, (*shape, 3), np.uint8)
    measures = DriftMonitor(FPS).update(0, torch.from_numpy(frames))
    assert np.isfinite([measures.colour, measures.sharpness, measures.distance]).all()
    assert sample_places(shape[1]).max() < shape[1]


def test_pictures_without_any_detail_are_survived():
    monitor = DriftMonitor(FPS)
    for block in range(40):
        measures = monitor.update(block, np.full((12, 8, 8, 3), block % 2 * 255, np.uint8), np.zeros(12))
    assert measures.correlation is None and np.isfinite(measures.colour) and laplacian(np.zeros((2, 2, 3))) == 0


def test_memory_does_not_grow_with_the_stream():
    monitor, _ = watch(100)
    assert len(monitor._motion) == len(monitor._loudness) == 160
    assert not monitor._beginning and len(monitor._recent) < 8 and len(monitor._ten) < 15


def test_loudness_is_each_frames_rms():
    voice = ArrayAudio(np.repeat([0.5, 0.0, -0.25], 1000), 16000)
    assert frame_loudness(voice, 16, range(0, 4)).tolist() == [0.5, 0.0, 0.25, 0.0]


def test_means_weigh_by_frames_and_leave_out_what_is_unknown():
    one, two = Measures(1.0, 1.0, 0.0), Measures(4.0, 1.0, 0.0, correlation=0.5)
    mean = mean_of([(8, one), (4, two)])
    assert mean.colour == 2.0 and mean.correlation == 0.5


def test_the_report_holds_the_measures_and_drift_resets_the_run_once_a_warning():
    resets = []
    run = SimpleNamespace(reset=resets.append)
    report = RunReport(FPS, "w", True)
    observe, loud = Observer(report, None, reset_on_drift=run), np.zeros(2000)
    for block in range(60):
        frames = talking(block * BLOCK, BLOCK, loud)
        frames = (frames * (0.4 if 30 <= block < 40 else 1.0)).astype(np.uint8)
        facts = {"index": block, "steps": 4, "reset": False, "max_position": 5, "seconds": 0.1}
        shown = {"first_frame": block * BLOCK, "last_frame": block * BLOCK + BLOCK - 1}
        observe(SimpleNamespace(**facts, **shown), torch.from_numpy(frames), delay=0.5)
    summary = report.summary()
    assert resets and set(resets) == {0}
    assert {warning["measure"] for warning in summary["warnings"]} >= {"colour"} and summary["every_10_seconds"]
    assert {"colour", "sharpness", "distance", "correlation", "delay"} <= set(summary["blocks"][50])
