"""Lip sync: the mouth's opening in the pixels against the track that drove the clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mouth_pixels import mouth_opening_from_pixels

MAX_LAG = 6  # frames
WIDER = np.array((-2.0, -2.0, 2.0, 2.0), np.float32)  # pixels: a generated head is not where the drawn one was


@dataclass(frozen=True)
class MouthReport:
    """r: correlation with the driving track at lag 0; best_r at `lag` frames (positive: the picture is late);
    shifted_r: with the track rotated by a third of its length (chance); amplitude: spread of the opening."""

    r: float
    best_r: float
    lag: int
    shifted_r: float
    amplitude: float


def mouth_report(frames: np.ndarray, box: np.ndarray, track: np.ndarray) -> MouthReport:
    """frames [T, H, W, 3] uint8; box [T, 4] or [4] in pixels; track [T], how far the driving mouth was open."""
    seen = mouth_opening_from_pixels(frames, np.asarray(box) + WIDER)
    by_lag = {lag: correlation(*shifted(seen, track, lag)) for lag in range(-MAX_LAG, MAX_LAG + 1)}
    lag = max(by_lag, key=by_lag.get)
    return MouthReport(
        r=by_lag[0],
        best_r=by_lag[lag],
        lag=lag,
        shifted_r=correlation(seen, np.roll(track, len(track) // 3)),
        amplitude=float(seen.std()),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where one of them never changes."""
    if min(a.std(), b.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def shifted(seen: np.ndarray, track: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Both cut so that seen[t + lag] stands beside track[t]."""
    stop = len(seen) - abs(lag)
    return (seen[lag : lag + stop], track[:stop]) if lag >= 0 else (seen[:stop], track[-lag : -lag + stop])
