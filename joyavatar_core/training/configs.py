"""The models that can be trained: the embedded avatar, and a student of the public models' size."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import EXACT_LEVELS, AvatarConfig
from ..sampling.flow import dense_levels

PRESET = {"psb": {"first": 8}, "mci": {"frames": 3, "noise": 0.25}, "urcr": {"sinks": 3, "recent": 6}}

TINY = AvatarConfig(
    dim=192, ffn_dim=768, num_heads=3, num_layers=8, text_dim=16, freq_dim=64, audio_dim=8, audio_hidden=64,
    text_tokens=1, audio_features="visemes", levels=dense_levels(6, 2.0), shift=2.0, trained_positions=15, width=128,
    height=128, preset=PRESET,
)  # fmt: skip
LARGE = AvatarConfig(levels=EXACT_LEVELS, trained_positions=15, preset=PRESET)


@dataclass(frozen=True)
class Trained:
    """A model and how its stages are run.

    rates: learning rates of stage 1 and 2.
    bidirectional_scores: whether stage 2's teacher is a public bidirectional model instead of our causal stage 1.
    """

    model: AvatarConfig
    rates: tuple[float, float]
    bidirectional_scores: bool


CONFIGS = {
    "tiny": Trained(TINY, rates=(1.5e-3, 1e-4), bidirectional_scores=False),
    "1.3b": Trained(LARGE, rates=(1e-5, 2e-6), bidirectional_scores=True),
}
