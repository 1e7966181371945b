"""VAEs of seeded random weights: right shapes and usual value ranges without training."""

from __future__ import annotations

import torch
from torch import Tensor

from .wan import StreamingVAE


def random_state_dict(dim: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a Wan2.1 VAE of base width `dim`, the same on every machine, in float32.

    Variance-preserving convolutions and damped residual branches: normalised latents decode to frames of about
    unit range, and frames encode to latents of about unit variance.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in StreamingVAE(dim).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("gamma"):
            state[name] = 1 + 0.1 * torch.randn(shape, generator=generator)
        elif name.endswith("bias"):
            state[name] = 0.05 * torch.randn(shape, generator=generator)
        else:
            gain = 0.5 if ".residual.6." in name or name == "decoder.head.2.weight" else 1.0
            state[name] = gain * torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
    return state


def random_weights_vae(dim: int = 16, seed: int = 0) -> StreamingVAE:
    """A frozen StreamingVAE of seeded random weights: for tests, and for runs without weights."""
    return StreamingVAE.from_state_dict(random_state_dict(dim, seed))
