"""Measures the mouth's opening from pixels."""

from __future__ import annotations

import numpy as np

# What is seen between the lips: dark, throat, teeth (sRGB 0..1), and how near a pixel must be to count.
INSIDE = np.array(((28, 2, 9), (70, 10, 24), (250, 250, 247)), np.float32) / 255
NEAR = 0.075


def mouth_opening_from_pixels(frames: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Visible inside of the mouth, [T] in pixels of area, from frames [T, H, W, 3] uint8 and boxes [T, 4] or [4].

    Every pixel of the box counts by its nearness to the colours of teeth and of the dark behind them, as far as that
    exceeds what the pixel shows a quarter of the time: give at least some seconds.
    """
    box = np.broadcast_to(np.asarray(box, np.float32), (len(frames), 4))
    height, width = frames.shape[1:3]
    ry, rx = (round(float(np.median(box[:, k + 2] - box[:, k])) / 2) for k in (1, 0))
    inside = np.empty((len(frames), 2 * ry, 2 * rx), np.float32)
    for t, frame in enumerate(frames):
        x, y = round(float(box[t, 0] + box[t, 2]) / 2), round(float(box[t, 1] + box[t, 3]) / 2)
        x, y = min(max(x, rx), width - rx), min(max(y, ry), height - ry)
        crop = frame[y - ry : y + ry, x - rx : x + rx].astype(np.float32) / 255
        distance = np.square(crop[..., None, :] - INSIDE).sum(-1).min(-1)
        inside[t] = np.exp(-distance / (2 * NEAR**2))
    # A beard or a very fair skin has these colours too, but has them all the time.
    return np.maximum(inside - np.percentile(inside, 25, axis=0), 0).sum((1, 2))
