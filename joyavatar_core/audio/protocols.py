"""The two interfaces of audio features: what computes them from a waveform, and what a stream asks for them."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import numpy as np
from torch import Tensor

from .source import AudioSource


class FeatureEncoder(Protocol):
    """Turns a window of the waveform into features of its video frames (LogMel, VisemeEncoder, Wav2Vec2)."""

    sample_rate: int  # Hz
    feature_dim: int
    hop: int  # samples; windows begin at its multiples, so that the encoder's own frames fall alike in every window
    left_reach: int  # samples before the first frame that `encode` needs
    right_reach: int
    left_context: float  # seconds before the block that should be in the window by default
    lookahead: float

    def encode(self, waveform: np.ndarray, edges: list[int]) -> Tensor:
        """waveform [S]; L + 1 sample indices of the frames' edges -> [L, feature_dim]."""


class Features(Protocol):
    """The audio features of a stream, by latent frame (AudioFeatures, FixedFeatures).

    A class that derives from Features gets the defaults below, those of features without a waveform behind them.
    """

    feature_dim: int
    fps: int | Fraction
    block_frames: int  # latent frames of a block
    num_video_frames: int | None  # as long as the audio; None while it is growing, or without end
    lead: int = 0  # latent frames that block 0 has more
    source: AudioSource | None = None  # the waveform
    encoder: FeatureEncoder | None = None
    offset: int | None = None  # video frames the features run ahead (+) or behind (-)
    left_frames: int | None = None  # video frames of audio, before and after a block, that its features depend on
    right_frames: int | None = None

    def ready(self, block: int) -> bool:
        """Whether block `block` exists and can be computed without waiting."""

    def wait(self, block: int, timeout: float | None = None) -> bool:
        """Wait until block `block` can be computed; False once the audio has ended before its first video frame.

        timeout: seconds after which it is False too, where the audio is still growing.
        """

    def latent_features(self, first_latent: int, count: int) -> Tensor:
        """Features of latent frames first_latent ... first_latent + count - 1: [count, 4, feature_dim]."""
