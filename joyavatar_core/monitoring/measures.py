"""Cheap numbers about pictures and voices: colour, structure, detail, loudness."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ..audio import AudioSource, Clock

SIDE = 32  # pixels of the thumbnail that colour, structure and motion are measured on
# An sRGB step of the thumbnail to CIELAB (D65): IEC 61966-2-1 and CIE 15
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
WHITE = TO_XYZ.sum(axis=1)
TO_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, SIDE, SIDE, 3] in 0 ... 1, each the mean of at most 4 x 4 of its pixels."""
    rows, columns = (sample_places(side) for side in frames.shape[1:3])
    picked = frames[:, rows][:, :, columns].astype(np.float32)
    steps = (len(rows) // SIDE, len(columns) // SIDE)
    return picked.reshape(len(frames), SIDE, steps[0], SIDE, steps[1], 3).mean(axis=(2, 4)) / 255


def sample_places(side: int) -> np.ndarray:
    """Evenly spread pixels of one side, a whole number for each of SIDE cells."""
    each = min(4, max(1, side // SIDE))
    return ((np.arange(SIDE * each) + 0.5) * side / (SIDE * each)).astype(int)


def colour_statistics(small: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of L*, a*, b* over thumbnails in sRGB: [6]."""
    linear = np.where(small <= 0.04045, small / 12.92, ((small + 0.055) / 1.055) ** 2.4)
    xyz = np.maximum(linear @ TO_XYZ.T / WHITE, 0)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    return np.concatenate([lab.mean(axis=(0, 1, 2)), lab.std(axis=(1, 2)).mean(axis=0)])


def normalised(light: np.ndarray) -> np.ndarray:
    """[N, SIDE, SIDE] with mean 0 and mean square 1 each; a flat picture is 0."""
    centred = light - light.mean(axis=(1, 2), keepdims=True)
    power = np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    return centred / np.maximum(power, 1e-4)


def laplacian(frame: np.ndarray) -> float:
    """Mean absolute Laplacian of the brightness of one picture, uint8 [H, W, 3], at full resolution."""
    light = frame[..., 1].astype(np.int16)  # green is most of the brightness
    edge = 4 * light[1:-1, 1:-1] - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    return float(np.abs(edge).mean()) if edge.size else 0.0


def correlation(a: Any, b: Any, smooth: int = 3) -> float | None:
    """Pearson's of two series, each the mean of `smooth` neighbours; None where one is constant."""
    kernel = np.ones(smooth) / smooth
    x, y = (np.convolve(np.asarray(series, np.float64), kernel, "valid") for series in (a, b))
    x, y = x - x.mean(), y - y.mean()
    power = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / power) if power > 1e-9 else None


def frame_loudness(voice: AudioSource, fps: int | Fraction, frames: range) -> np.ndarray:
    """The voice's RMS in each of these video frames, float64 [N]."""
    clock = Clock(voice.sample_rate, fps)
    start, stop = clock.frame_samples(frames)
    power = voice.read(start, stop).astype(np.float64) ** 2
    edges = [clock.frame_start(frame) - start for frame in frames]
    lengths = np.diff([*edges, stop - start])
    return np.sqrt(np.add.reduceat(power, edges) / lengths)
