"""Viseme features: a small convolutional network that predicts the mouth's shape from log-mel spectra.

The embedded avatar uses it as the public avatars use wav2vec2. `joyavatar_core/training/viseme_encoder.py` trains it
before the transformer. The transformer then learns only how a mouth of a given shape looks.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights import load_frozen
from .mel import BANDS, WINDOW, log_mel

SLOTS = 4  # spectra per video frame
WIDTH = 128
DILATIONS = (1, 2, 4, 1, 2, 4)  # in spectra: together with the first layer they see 0.5 s to either side at 16 fps
KERNEL = 5
# The features of a video frame, each at zero mean and unit deviation over synthetic speech: the seven parameters
# of a drawn mouth (`synthetic/drawn/mouth.py`) and how loud the voice is.
VISEMES = ("open", "spread", "round", "teeth", "tongue", "tuck", "press", "loud")


class VisemeNet(nn.Module):
    """Spectra -> mouth shapes, [B, SLOTS * L, 32] -> [B, L, 8]; every frame from about 0.5 s around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, WIDTH, KERNEL, padding=KERNEL // 2)
        self.layers = nn.ModuleList(ResidualConv(dilation) for dilation in DILATIONS)
        self.pool = nn.Conv1d(WIDTH, WIDTH, SLOTS, stride=SLOTS)
        self.head = nn.Linear(WIDTH, len(VISEMES))

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.first(spectra.transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(F.gelu(self.pool(x)).transpose(1, 2))


class ResidualConv(nn.Module):
    """A dilated convolution and a pointwise one beside the way through, [B, WIDTH, N] -> the same."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2 * dilation, dilation=dilation)
        self.mix = nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mix(F.gelu(self.wide(h)))


class VisemeEncoder:
    """Eight numbers per video frame of 16 kHz mono (VISEMES); a feature encoder like LogMel and Wav2Vec2.

    For a live source, without look-ahead, the last frames of a block depend on the audio before them alone.
    """

    sample_rate = 16000
    feature_dim = len(VISEMES)
    hop = 1  # samples
    left_reach = right_reach = WINDOW // 2  # samples
    left_context, lookahead = 0.75, 0.25  # seconds

    def __init__(self, model: VisemeNet) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> VisemeEncoder:
        """An encoder from a safetensors file; it computes in float32. Raises AvatarError for any other file."""
        return cls(load_frozen(VisemeNet(), path, "viseme encoder"))

    @torch.no_grad()
    def encode(self, waveform: np.ndarray, edges: list[int]) -> Tensor:
        """Features of L video frames: float32 [L, 8]; arguments as `LogMel.encode`."""
        spectra = torch.from_numpy(log_mel(waveform, edges, SLOTS)).flatten(0, 1)
        return self.model(spectra[None])[0]
