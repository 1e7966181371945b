"""Change over time: distance from the portrait, colour and sharpness."""

from __future__ import annotations

import numpy as np


def drift(frames: np.ndarray, portrait: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Mean absolute difference from the portrait outside the mouth, [T], in grey levels 0 ... 255.

    frames [T, H, W, 3], portrait [H, W, 3], box [4] the mouth's region in pixels.
    """
    left, top, right, bottom = np.round(box).astype(int)
    outside = np.ones(portrait.shape[:2], bool)
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    still = portrait[outside].astype(np.float32)
    return np.array([np.abs(frame[outside].astype(np.float32) - still).mean() for frame in frames])


def colour_shift(frames: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """Distance of the mean colour from the portrait's, [T], in grey levels."""
    means = frames.reshape(len(frames), -1, 3).mean(1)
    return np.linalg.norm(means - portrait.reshape(-1, 3).mean(0), axis=1)


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian of the brightness, [T]."""
    grey = frames.astype(np.float32).mean(-1)
    inner = grey[:, 1:-1, 1:-1]
    edges = 4 * inner - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return np.abs(edges).mean((1, 2))


def identity_distance(frames: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """How far the mean picture is from the person's own, 0, as a share of the way to other people, 1.

    frames [T, H, W, 3]; own [H, W, 3], the mean of the person's true frames; others [N, H, W, 3]. It stands in for a
    face recogniser, which has not been trained on drawings.
    """
    mean = frames.mean(0)
    return float(np.abs(mean - own).mean() / np.abs(others - own).mean((1, 2, 3)).mean())
