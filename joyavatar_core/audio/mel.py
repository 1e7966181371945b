"""Log-mel features: two short spectra a video frame, small enough for a small avatar and local in time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

SLOTS = 2  # spectra per video frame, at 1/4 and 3/4 of it
BANDS = 32
WINDOW = 640  # samples, 40 ms: spans the slots' pitch at 16 fps (500 samples) and 25 fps (320)
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0
FLOOR = 1e-7  # power of a band that counts as silence
# mean and scale of log10(power + floor) over synthetic speech; fixed, so that the features contain the loudness
LOG_MEAN, LOG_SCALE = -5.5, 1.4


class LogMel:
    """2 x 32 log-mel bands per video frame of 16 kHz mono, roughly zero mean and unit scale for speech.

    A frame's features depend on at most `left_reach` samples before it and `right_reach` after it.
    """

    sample_rate = 16000
    feature_dim = SLOTS * BANDS
    hop = 1  # samples
    left_reach = right_reach = WINDOW // 2  # samples
    left_context = lookahead = 0.0  # seconds

    def encode(self, waveform: np.ndarray, edges: list[int]) -> torch.Tensor:
        """Features of L video frames.

        waveform: float32 [S] at 16 kHz; edges: L + 1 sample indices, frame i is [edges[i], edges[i + 1]), with the
        reach on both sides inside the waveform. Returns float32 [L, 64], slot-major.
        """
        return torch.from_numpy(log_mel(waveform, edges, SLOTS).reshape(len(edges) - 1, self.feature_dim))


def log_mel(waveform: np.ndarray, edges: list[int], slots: int) -> np.ndarray:
    """`slots` spectra in every video frame, evenly spread: float32 [L, slots, 32]; arguments as `LogMel.encode`."""
    edge = np.asarray(edges)
    slot = np.arange(slots)
    centres = edge[:-1, None] + np.diff(edge)[:, None] * (2 * slot + 1) // (2 * slots)  # [L, slots]
    spectra = np.fft.rfft(waveform[centres[..., None] + np.arange(-WINDOW // 2, WINDOW // 2)] * _hann())
    power = np.abs(spectra) ** 2 @ _mel_filters().T  # [L, slots, 32]
    return ((np.log10(power + FLOOR) - LOG_MEAN) / LOG_SCALE).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """Triangles of height 1 over the bins of the spectrum, evenly spread on Slaney's mel scale: float32 [32, bins]."""
    edges = _mel_to_hz(np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(HIGHEST_HZ), BANDS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / LogMel.sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


# Slaney's scale (Auditory Toolbox, 1998): 200/3 Hz a mel up to 1 kHz, then 27 mels to every factor of 6.4.
LINEAR_HZ, KNEE_HZ, STEP = 200 / 3, 1000.0, np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    return hz / LINEAR_HZ if hz < KNEE_HZ else KNEE_HZ / LINEAR_HZ + np.log(hz / KNEE_HZ) / STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = KNEE_HZ / LINEAR_HZ
    return np.where(mel < knee, mel * LINEAR_HZ, KNEE_HZ * np.exp(STEP * (mel - knee)))


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return (window / window.sum()).astype(np.float32)  # a full-scale sine has a peak of 1/4, at any window length
