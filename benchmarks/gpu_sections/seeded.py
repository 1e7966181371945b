"""What stands in for files: a miniature's configuration, seeded random weights and a voice."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from joyavatar_core.audio import Features
from joyavatar_core.config import AvatarConfig

TINY = AvatarConfig(
    dim=64, ffn_dim=128, num_heads=2, num_layers=4, text_dim=16, freq_dim=32, audio_dim=16, audio_hidden=8,
    width=64, height=64,
)  # fmt: skip


class FeatureVoice(Features):
    """A voice that never ends, as features: no audio package is needed."""

    block_frames = 3

    def __init__(self, config: AvatarConfig) -> None:
        self.feature_dim, self.fps, self.num_video_frames = config.audio_dim, config.fps, 10**6
        self.rows = torch.randn(64, 4, self.feature_dim, generator=torch.Generator().manual_seed(3))

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return True

    def latent_features(self, first: int, count: int) -> Tensor:
        return self.rows[[(first + k) % len(self.rows) for k in range(count)]]


@torch.no_grad()
def filled(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A module with seeded random weights made on the device; outputs keep about unit scale."""
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, p in module.named_parameters():
        if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
            p.fill_(1)
        else:
            damped = ".residual.6." in name or name == "decoder.head.2.weight"
            spread = 0.1 if p.ndim == 1 or name.endswith("modulation") else 1 / math.sqrt(math.prod(p.shape[1:]))
            p.normal_(0, spread / (2 if damped else 1), generator=generator)
    return module
