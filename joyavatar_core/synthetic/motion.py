"""Motion during speech: head, eyes, brows, breath, and moods that change."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from .moment import Moment
from .speaker import Speaker
from .viseme_tracks import RATE, Phone

COLUMN = {name: k for k, name in enumerate(Moment._fields)}
CALM = 0.45  # of what a lively cartoon would do: a face that hardly leaves its place stays sharp in a small model

EYES_STAY = 1.7  # change of the gaze for a turn of the head by a radian
# A mood is a resting place of (smile, lift, worry, squint, wide lids).
MOODS = {
    "neutral": (0.08, 0.0, 0.0, 0.0, 0.0),
    "happy": (0.8, 0.2, 0.05, 0.5, 0.0),
    "sad": (-0.6, 0.1, 0.75, 0.0, -0.12),
    "surprised": (0.1, 0.95, 0.15, 0.0, 0.17),
    "serious": (-0.22, -0.4, -0.5, 0.15, -0.03),
}


def _wander(rng: np.random.Generator, n: int, seconds: float) -> np.ndarray:
    """Smooth noise of unit deviation with a correlation time of about `seconds`."""
    sigma = seconds * RATE / 2.5
    step = max(int(sigma / 4), 1)  # coarse noise, then interpolated: films may be long
    coarse = gaussian_filter1d(rng.normal(size=n // step + 40), sigma / step)
    scale = np.sqrt(2 * np.sqrt(np.pi) * sigma / step)
    return np.interp(np.arange(n), np.arange(len(coarse)) * step - 10 * step, coarse * scale)


def _holds(rng: np.random.Generator, n: int, mean: float, least: float, draw) -> np.ndarray:
    """A staircase: values from `draw()` held for random times (seconds)."""
    values = np.empty(n)
    at = 0
    while at < n:
        length = int((least + rng.exponential(mean - least)) * RATE)
        values[at : at + length] = draw()
        at += length
    return values


def _eased(stairs: np.ndarray, seconds: float) -> np.ndarray:
    return gaussian_filter1d(stairs, seconds * RATE / 3, mode="nearest")


def _bumps(n: int, at: np.ndarray, heights: np.ndarray, attack: float, release: float) -> np.ndarray:
    """A quick rise and a slower fall at each instant (indices)."""
    out = np.zeros(n)
    rise, fall = int(attack * RATE), int(release * RATE)
    bump = np.concatenate([np.sin(np.linspace(0, np.pi / 2, rise)) ** 2, np.cos(np.linspace(0, np.pi / 2, fall)) ** 2])
    for k, height in zip(at, heights, strict=True):
        start = k - rise
        a, b = max(start, 0), min(start + len(bump), n)
        if b > a:
            out[a:b] += height * bump[a - start : b - start]
    return out


def _blinks(rng: np.random.Generator, n: int, pauses: list[Phone]) -> np.ndarray:
    """Closure of the lids, 0..1: about 17 a minute, more at pauses, now and then twice in a row."""
    times, t = [], rng.uniform(0.3, 3.0)
    while t < n / RATE:
        times.append(t)
        t += 0.32 if rng.random() < 0.07 else float(np.clip(rng.lognormal(1.2, 0.5), 0.9, 9))
    times += [p.start + 0.1 for p in pauses if p.end - p.start > 0.25 and rng.random() < 0.35]
    at = (np.array(sorted(times)) * RATE).astype(int)
    return np.clip(_bumps(n, at, np.full(len(at), 1.35), 0.11, 0.2), 0, 1)


def _moods(rng: np.random.Generator, n: int, temper: float) -> np.ndarray:
    """[N, 5]: drifts between moods, each held for some seconds; `temper` tilts the choice."""
    names = list(MOODS)
    p = np.array([0.36, 0.3 * np.exp(temper), 0.11 * np.exp(-temper), 0.08, 0.15 * np.exp(-temper)])
    p /= p.sum()
    chosen = _holds(rng, n, 5.0, 2.0, lambda: rng.choice(len(names), p=p)).astype(int)
    strength = _holds(rng, n, 4.0, 1.5, lambda: rng.uniform(0.5, 1.0))
    return np.stack([_eased(column * strength, 0.9) for column in np.array(list(MOODS.values()))[chosen].T], axis=1)


def moments(
    rng: np.random.Generator, who: Speaker, phones: list[Phone], loud: np.ndarray, mouth: np.ndarray, fps: int = 16,
    calm: float = CALM,
) -> np.ndarray:  # fmt: skip
    """Everything that moves, [T, 20] at `fps` (columns of `Moment`), from `loud` [N] and `mouth` [N, 7] at RATE.

    `calm` scales the head's movements.
    """
    n = len(loud)
    out = np.zeros((n, len(Moment._fields)))
    column = {name: out[:, k] for name, k in COLUMN.items()}
    pauses = [p for p in phones if not p.ipa]
    voice = gaussian_filter1d(loud, 0.25 * RATE)
    energy = calm * who.liveliness * (0.65 + 0.55 * np.clip(voice * 1.4, 0, 1))

    peaks, found = find_peaks(
        gaussian_filter1d(loud, 0.06 * RATE), height=0.45, distance=int(0.38 * RATE), prominence=0.06
    )
    stress = found["peak_heights"] * rng.uniform(0, 1, len(peaks)) ** 1.5

    posture = [_eased(_holds(rng, n, 2.6, 0.8, lambda: rng.normal()), 0.7) for _ in range(3)]
    nods = _bumps(n, peaks, stress * rng.choice((1, 1, 1, -0.7), len(peaks)), 0.14, 0.3)
    glances = rng.random  # mostly at the camera, at times past it
    gaze = [np.empty(n), np.empty(n)]
    at = 0
    while at < n:
        length = int((0.35 + rng.exponential(1.3)) * RATE)
        away = glances() < 0.3
        gaze[0][at : at + length] = rng.normal(0, 0.4 if away else 0.05)
        gaze[1][at : at + length] = rng.normal(0, 0.25 if away else 0.04)
        at += length
    gaze = [_eased(np.clip(g, -1, 1), 0.05) for g in gaze]
    follow = [_eased(g, 0.8) for g in gaze]

    column["yaw"][:] = energy * (0.13 * posture[0] + 0.065 * _wander(rng, n, 1.6) + 0.012 * _wander(rng, n, 0.4))
    column["yaw"][:] += 0.05 * follow[0]
    column["pitch"][:] = energy * (0.05 * posture[1] + 0.032 * _wander(rng, n, 1.3) - 0.13 * nods) + 0.025 * follow[1]
    column["roll"][:] = who.lean + energy * (0.045 * posture[2] + 0.025 * _wander(rng, n, 1.8))
    column["x"][:] = energy * (0.9 * posture[2] + 1.1 * _wander(rng, n, 2.2)) + 9 * column["roll"]
    column["y"][:] = energy * (0.5 * _wander(rng, n, 1.8) + 1.3 * nods)
    for name, most in (("yaw", 0.34), ("pitch", 0.2), ("roll", 0.13), ("x", 4.5), ("y", 3.5)):
        column[name][:] = most * np.tanh(column[name] / most)

    phase = 2 * np.pi * np.cumsum(0.27 * (1 + 0.15 * _wander(rng, n, 4))) / RATE
    column["breath"][:] = 0.5 + 0.5 * np.sin(phase + rng.uniform(0, 6))
    column["gaze_x"][:] = np.clip(gaze[0] - EYES_STAY * column["yaw"], -1, 1)  # the eyes stay on what they look at
    column["gaze_y"][:] = np.clip(gaze[1] - EYES_STAY * column["pitch"], -1, 1)

    mood = _moods(rng, n, who.temper)
    raised = _bumps(n, peaks, stress * (rng.random(len(peaks)) < 0.5), 0.12, 0.35)
    blink = _blinks(rng, n, pauses)
    column["smile"][:] = np.clip(mood[:, 0] + 0.15 * who.temper, -0.8, 1) * (1 - 0.25 * voice)
    column["lift"][:] = np.clip(mood[:, 1] + 0.7 * raised + 0.08 * _wander(rng, n, 1.5), -0.8, 1.3)
    column["worry"][:], column["squint"][:] = mood[:, 2], mood[:, 3]
    column["lid"][:] = (1 + mood[:, 4] + 0.06 * raised + 0.12 * np.minimum(gaze[1], 0)) * (1 - blink)
    out[:, -mouth.shape[1] :] = mouth
    frames = np.arange(int(n / RATE * fps)) * RATE / fps + RATE / fps / 2  # the middle of each frame
    return out[np.minimum(frames.astype(int), n - 1)].astype(np.float32)
