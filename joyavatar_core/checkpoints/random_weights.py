"""Seeded random weights in place of an avatar: everything runs, only the picture has no meaning."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import AvatarConfig
from . import canonical_shapes

RANDOM_CONFIG = AvatarConfig(
    dim=128, ffn_dim=512, num_heads=4, num_layers=6, text_dim=16, freq_dim=64, audio_dim=64, audio_hidden=16,
    text_tokens=1, audio_features="log-mel", width=128, height=128, trained=False,
    preset={"psb": {}, "mci": {}, "urcr": {}},
)  # fmt: skip


def random_state_dict(config: AvatarConfig = RANDOM_CONFIG, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 weights of a transformer, the same on every machine; outputs are of about unit scale."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in sorted(canonical_shapes(config).items()):
        noise = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            state[name] = 0.02 * noise
        elif "norm" in name:
            state[name] = 1 + 0.02 * noise
        elif name.endswith("modulation"):
            state[name] = 0.1 * noise
        else:
            state[name] = noise / math.prod(shape[1:]) ** 0.5
    return state
