"""Linear layers whose weights stay float8 in memory: multiplied as they are on GPUs that can, else converted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
LARGEST = torch.finfo(torch.float8_e4m3fn).max
CAPABILITY = (8, 9)  # of CUDA devices that multiply float8
TILE = 16  # what the sizes of a float8 product must be multiples of


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

    @property
    def has_scale(self) -> bool:
        """Whether the values are to be multiplied at all."""
        return self.scale != 1.0 or getattr(self, "row_scales", None) is not None

    def scaled(self, weight: Tensor) -> Tensor:
        """`weight`, already of the dtype of the computation, times its scale, rounded once."""
        if not self.has_scale:
            return weight
        return (weight * self._factor(weight)).to(weight.dtype)

    def unscaled(self, change: Tensor) -> Tensor:
        """A change of the weight [rows, columns], divided by the scale: what to add to the kept values."""
        return (change / self._factor(change)).to(change.dtype)

    def _factor(self, like: Tensor) -> Tensor | float:
        rows = getattr(self, "row_scales", None)
        return self.scale if rows is None else rows.to(like.device)


class Fp8Linear(Fp8Weight, nn.Linear):
    """`nn.Linear` that may keep its weight as float8.

    Where the device multiplies float8, the input is rounded to it with a scale for each row. Elsewhere the weight is
    converted to the input's dtype for each product, and only its own rounding is lost.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if weight.dtype in FP8:
            if x.is_cuda and multiplies_fp8(x.device) and self.fits_product():
                return self.product(x)
            weight = self.scaled(weight.to(x.dtype))
        return F.linear(x, weight, self.bias)

    def fits_product(self) -> bool:
        """Whether weight and sizes are those of `product`."""
        tiled = self.in_features % TILE == 0 == self.out_features % TILE
        return tiled and self.weight.dtype == torch.float8_e4m3fn

    def product(self, x: Tensor) -> Tensor:
        """The product in float8, [..., in] -> [..., out], added up and rounded in bfloat16."""
        rows = x.reshape(-1, self.in_features)
        scales = rows.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12) / LARGEST
        rounded = (rows / scales).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        columns = self._column_scales(x.device)
        made = torch._scaled_mm(rounded, self.weight.t(), scale_a=scales, scale_b=columns, out_dtype=torch.bfloat16)
        made = made if self.bias is None else made + self.bias
        return made.to(x.dtype).unflatten(0, x.shape[:-1])

    def _column_scales(self, device: torch.device) -> Tensor:
        """The weight's scale for each column of the product, [1, out] float32."""
        rows = getattr(self, "row_scales", None)
        if rows is not None:
            return rows.to(device).t().contiguous()
        return torch.full((1, self.out_features), self.scale, dtype=torch.float32, device=device)


class Fp8Operations:
    """The `operations` of a model whose linear layers may keep float8."""

    Linear = Fp8Linear
    LayerNorm = nn.LayerNorm
    Conv3d = nn.Conv3d


def multiplies_fp8(device: torch.device) -> bool:
    """Whether a CUDA device has products of float8."""
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def keep_in_fp8(module: nn.Module) -> None:
    """Turn the linear layers inside a loaded module into Fp8Linear, rounded, one after the other."""
    for parent in list(module.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is nn.Linear:
                setattr(parent, name, rounded_linear(linear))


def rounded_linear(linear: nn.Linear) -> Fp8Linear:
    """A layer with its weight rounded to float8."""
    with torch.device("meta"):
        layer = Fp8Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    weight, scale = rounded_to_fp8(linear.weight.detach())
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = linear.bias
    layer.set_scale(scale)
    return layer


def rounded_to_fp8(weight: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """A weight as float8_e4m3fn and the one scale that makes its largest number the largest of the format.

    rows: computed in float32 at a time, by default all of them.
    """
    parts = weight.split(rows or len(weight))
    largest = max(part.float().abs().max() for part in parts)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
    result = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    for part, source in zip(result.split(len(parts[0])), parts, strict=True):
        part.copy_(source.float() / scale)
    return result, scale
