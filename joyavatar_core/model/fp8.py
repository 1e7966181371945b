"""Linear layers whose weights are kept in 8 bits: half the memory of bfloat16, and faster products on newer GPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FP8 = torch.float8_e4m3fn
MOST = torch.finfo(FP8).max
CAPABILITY = (8, 9)  # of CUDA devices that multiply float8
TILE = 16  # what the sizes of a float8 product must be multiples of


class Fp8Linear(nn.Module):
    """A Linear with its weight [out, in] in float8_e4m3fn times one float32 `scale`; the bias stays as it is.

    Where the device multiplies float8, the input is rounded to it with a scale for each row. Elsewhere the weight is
    converted to the input's dtype for each product, and only its own rounding is lost.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantised(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and multiplies_fp8(x.device) and not (self.in_features % TILE or self.out_features % TILE):
            return self.product(x)
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)

    def product(self, x: Tensor) -> Tensor:
        """The product in float8, [..., in] -> [..., out]; x is bfloat16."""
        rows = x.reshape(-1, self.in_features)
        scales = rows.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12) / MOST
        rounded = (rows / scales).clamp(-MOST, MOST).to(FP8)
        own = self.scale.expand(1, self.out_features).contiguous()
        made = torch._scaled_mm(rounded, self.weight.t(), scale_a=scales, scale_b=own, out_dtype=torch.bfloat16)
        made = made if self.bias is None else made + self.bias
        return made.to(x.dtype).unflatten(0, x.shape[:-1])


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as float8 and its scale: the one of two that loses less.

    The weight's largest number becomes float8's largest, or the scale is the power of two above. The second is exact
    for weights that were float8 without a scale before.
    """
    exact = weight.float()
    scale = exact.abs().amax().clamp_min(1e-12) / MOST
    best = None
    for one in (scale, torch.exp2(torch.log2(scale).ceil())):
        rounded = (exact / one).clamp(-MOST, MOST).to(FP8)
        loss = (rounded.float() * one - exact).square().sum()
        if best is None or loss < best[0]:
            best = loss, rounded, one
    return best[1], best[2]


def multiplies_fp8(device: torch.device) -> bool:
    """Whether a CUDA device has products of float8."""
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def keep_in_fp8(blocks: nn.ModuleList) -> None:
    """Turn the linear layers of transformer blocks into Fp8Linear, one after the other."""
    for module in list(blocks.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, Fp8Linear(layer))
