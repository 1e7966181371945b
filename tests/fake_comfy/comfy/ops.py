"""Stand-in: torch's own layers, and linear layers that cast as the host's do."""

from __future__ import annotations

import torch
from torch import Tensor

disable_weight_init = torch.nn


def cast_bias_weight(layer: torch.nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias in the dtype of the input."""
    return layer.weight.to(x.dtype), layer.bias.to(x.dtype)


class manual_cast:
    """Layers that cast their weights when they are used."""

    LayerNorm, Conv3d = torch.nn.LayerNorm, torch.nn.Conv3d

    class Linear(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return self.forward_comfy_cast_weights(x)

        def forward_comfy_cast_weights(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x, *cast_bias_weight(self, x))
