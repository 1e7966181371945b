"""Copies from the host's memory to a device that no one waits for."""

from __future__ import annotations

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
