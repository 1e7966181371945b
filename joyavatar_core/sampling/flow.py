"""Flow matching as the few-step students use it: x_sigma = (1 - sigma) x0 + sigma noise; the model gives noise - x0."""

from __future__ import annotations

import torch
from torch import Tensor

Level = tuple[float, float]  # (the model's timestep, sigma of the update)


def shifted_sigma(u: float, shift: float) -> float:
    """The noise level at u in 0 ... 1 of a schedule under SD3's timestep shift."""
    return shift * u / (1 + (shift - 1) * u)


def dense_levels(count: int, shift: float) -> tuple[Level, ...]:
    """`count` levels at u = 1 - k / count, for models trained on every level."""
    sigmas = (shifted_sigma(1 - k / count, shift) for k in range(count))
    return tuple((1000 * sigma, sigma) for sigma in sigmas)


def predict_x0(x: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """The predicted clean latents x - sigma flow; sigma rounded to float32, the rest in float64, in x's dtype."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    return (x.to(wide) - torch.tensor(sigma, dtype=torch.float32).item() * flow.to(wide)).to(x.dtype)


def add_noise(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """(1 - sigma) x0 + sigma noise, mixed in float32 and rounded once to x0's dtype."""
    level = torch.tensor(sigma, dtype=torch.float32)
    return ((1 - level) * x0.float() + level * noise.to(x0).float()).to(x0.dtype)
