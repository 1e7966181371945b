"""The dtype that a device is quick with, and copies to a device without waiting."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device` in `dtype` (None: its own).

    A CPU tensor reaches a CUDA device through pinned memory: the copy is queued, and the caller goes on at once.
    """
    target = tensor.device if device is None else torch.device(device)
    if target.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(target, non_blocking=True).to(dtype or tensor.dtype)
    return tensor.to(target, dtype)


@lru_cache
def quick_dtype(device: str) -> torch.dtype | None:
    """bfloat16 where a type of device multiplies it more quickly than float32, else None.

    GPUs do, and CPUs with AMX or AVX512-BF16.
    """
    if device == "cpu":
        quick = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if quick else None
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else None


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that PyTorch can still give: what is free, and what its allocator keeps unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
