"""Linear layers whose weights stay float8 in memory and are converted to the input's dtype when they are used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Fp8Weight:
    """A linear layer's `weight` as float8 values times `scale`, or times `row_scales` [rows, 1], one for each row.

    A class with this base is also a module with `weight` [rows, columns]. A weight of another dtype is used as it is.
    """

    scale: float = 1.0

    def set_scale(self, scale: Tensor | None) -> None:
        """scale: one number, or one a row; None is 1."""
        self.scale, rows = 1.0, None
        if scale is not None and scale.numel() > 1:
            rows = scale.float().reshape(-1, 1)
        elif scale is not None:
            self.scale = scale.float().item()
        self.register_buffer("row_scales", rows, persistent=False)  # moves with the module, is in no state dict

    def scaled(self, weight: Tensor) -> Tensor:
        """`weight`, already of the dtype of the computation, times its scale, rounded once."""
        rows = getattr(self, "row_scales", None)
        if rows is not None:
            return (weight * rows.to(weight.device)).to(weight.dtype)
        return weight if self.scale == 1.0 else weight * self.scale


class Fp8Linear(Fp8Weight, nn.Linear):
    """`nn.Linear` that may keep its weight as float8. It needs no float8 arithmetic of the device."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if weight.dtype in FP8:
            weight = self.scaled(weight.to(x.dtype))
        return F.linear(x, weight, self.bias)


class Fp8Operations:
    """The `operations` of a model whose linear layers may keep float8."""

    Linear = Fp8Linear
    LayerNorm = nn.LayerNorm
    Conv3d = nn.Conv3d
