"""Stand-in: a host on a CPU that keeps models as they are, and that can be interrupted."""

from __future__ import annotations

import torch

loaded: list[list[object]] = []  # models of each load_models_gpu call
memory: list[float] = []
interrupt_after: int | None = None  # checks that pass before the user presses Stop


class InterruptProcessingException(Exception):
    pass


def throw_exception_if_processing_interrupted() -> None:
    global interrupt_after
    if interrupt_after is not None:
        interrupt_after -= 1
        if interrupt_after < 0:
            interrupt_after = None
            raise InterruptProcessingException


def load_models_gpu(models: list[object], memory_required: float = 0) -> None:
    loaded.append(list(models))
    memory.append(memory_required)


def get_torch_device() -> torch.device:
    return torch.device("cpu")


unet_offload_device = intermediate_device = vae_device = vae_offload_device = get_torch_device


def is_device_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def vae_dtype(device: torch.device, allowed_dtypes: list) -> torch.dtype:
    return torch.float32


def get_total_memory(device: torch.device) -> int:
    return 16 << 30


def unet_dtype(device: object, model_params: int, supported_dtypes: list, weight_dtype: torch.dtype) -> torch.dtype:
    return torch.float32


def unet_manual_cast(weight_dtype: torch.dtype, device: object, supported_dtypes: list) -> torch.dtype | None:
    return torch.float32 if weight_dtype.itemsize == 1 else None
