"""fp8 weights, plain and scaled as ComfyUI writes them, read as the numbers they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from ..errors import AvatarError
from ..model.fp8_linear import FP8
from .reader import LazyTensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
NUMBERS = 1 << 16  # computed at a time in float32: each tensor's temporary leaves a hole of its size in the heap
READ_AS = torch.bfloat16  # a float8 is exact in it
SCALES = (".scale_weight", ".weight_scale")  # of layer `name`; ComfyUI's older and newer ending
# What says how to compute with a layer, or that a file is scaled; the weights' values do not depend on it.
IGNORED = (".scale_input", ".input_scale", ".comfy_quant")
MARKER = "scaled_fp8"


def is_marker(name: str) -> bool:
    return name.endswith(IGNORED) or name.split(".")[-1] == MARKER


def dequantised(tensors: Mapping[str, LazyTensor], label: str) -> dict[str, LazyTensor]:
    """The tensors with every fp8 weight multiplied by its scale, and without scales and markers.

    A scale is one number, or one a row. Raises AvatarError for other quantisations (bitsandbytes, NVFP4, MXFP8, int8).
    """
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith(SCALES)}
    is_scaled = any(name.split(".")[-1] == MARKER for name in tensors)
    used: set[str | None] = set()
    weights: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if name in scales or is_marker(name):
            continue
        if tensor.dtype in FP8:
            layer = name.removesuffix(".weight")
            own = next((layer + end for end in SCALES if layer + end in scales), None)
            if own is None and (f"{layer}.comfy_quant" in tensors or (is_scaled and not scales)):
                raise AvatarError(
                    f"'{label}' is marked as scaled fp8 and has no scale for '{name}', expected one for each weight; "
                    "download it again, or choose another file."
                )
            used.add(own)
            tensor = scaled(name, tensor, scales.get(own), label)
        elif tensor.dtype not in FLOATS:
            raise AvatarError(
                f"'{label}' is quantised in a way that is not known here ('{name}' is {tensor.format}), expected "
                "float32, float16, bfloat16, fp8, scaled fp8 or a GGUF file."
            )
        weights[name] = tensor
    unused = next((name for name in scales if name not in used), None)
    if unused:
        raise AvatarError(
            f"'{label}' has the scale '{unused}' and no fp8 weight for it, expected scaled fp8; download "
            "it again, or choose another file."
        )
    return weights


def scaled(name: str, weight: LazyTensor, scale: LazyTensor | None, label: str) -> LazyTensor:
    """`weight` as bfloat16 or whatever is asked for, times its scale, computed in float32 and rounded once."""
    rows = weight.shape[:1]
    if scale is not None and scale.shape not in ((), (1,), rows, (*rows, 1)):
        raise AvatarError(
            f"'{label}' scales '{name}' {list(weight.shape)} by {list(scale.shape)} numbers, expected one number, or "
            "one a row; choose a scaled fp8 or GGUF file."
        )

    def copy(dtype: torch.dtype) -> torch.Tensor:
        if scale is None:
            return weight.copy(dtype)
        factor = scale.copy(torch.float32)
        result = weight.copy(dtype)  # exact: every float8 is a number of the wider types
        if factor.numel() == 1:
            return result.mul_(factor.item())
        step = rows_at_a_time(result)
        factors = factor.reshape(-1, *[1] * (len(weight.shape) - 1)).split(step)
        for part, factor in zip(result.split(step), factors, strict=True):
            part.copy_(part.float() * factor)
        return result

    stored = weight.format if scale is None else f"scaled {weight.format}"
    return dataclasses.replace(
        weight, dtype=READ_AS, view=lambda: copy(READ_AS), copy=copy, stored=stored, stored_bytes=weight.nbytes,
        fp8=lambda: (weight.view(), None if scale is None else scale.copy(torch.float32)),
    )  # fmt: skip


def rows_at_a_time(tensor: torch.Tensor) -> int:
    """How many rows of a tensor are computed in float32 at once."""
    return max(1, NUMBERS * len(tensor) // max(1, tensor.numel()))
