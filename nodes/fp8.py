"""The host's linear layers, with weights that may be kept as float8 and a scale."""

from __future__ import annotations

from collections.abc import Hashable

import comfy.ops
import torch.nn.functional as F
from torch import Tensor, nn

from ..joyavatar_core.model.fp8_linear import Fp8Weight


class HostFp8Linear(Fp8Weight, comfy.ops.manual_cast.Linear):
    """A layer that the host casts to the input's dtype and that is then multiplied by its scale."""

    def forward_comfy_cast_weights(self, x: Tensor) -> Tensor:
        weight, bias = comfy.ops.cast_bias_weight(self, x)
        return F.linear(x, self.scaled(weight), bias)


class HostFp8Operations:
    """The `operations` of a model whose linear layers may keep float8."""

    Linear = HostFp8Linear
    LayerNorm = comfy.ops.manual_cast.LayerNorm
    Conv3d = comfy.ops.manual_cast.Conv3d


def scaled_key(module: nn.Module, key: Hashable) -> Hashable:
    """The key under which a LoRA's patch is added: with a function that divides the patch by the scale of its weight.

    The host adds patches to the weight as it is kept, whose scale is applied later.
    """
    if not isinstance(key, str) or not key.endswith(".weight"):
        return key
    try:
        layer = module.get_submodule(key.removesuffix(".weight"))
    except AttributeError:
        return key
    return (key, None, layer.unscaled) if isinstance(layer, Fp8Weight) and layer.has_scale else key
