"""Attention back ends behind one call; torch's scaled_dot_product_attention is the default and the reference.

The others are used where they are installed and the tensors suit them (CUDA, half precision). In bfloat16 they agree
with the default to 2e-2 of the output's scale, SageAttention (8-bit keys) to 5e-2.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import AvatarError

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q [B, Tq, heads, d], k and v [B, Tk, heads, d] -> like q
HALF = (torch.bfloat16, torch.float16)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's own attention; `mask` [Tq, Tk] is True where a query may look, or a score to add."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def _cudnn() -> Attention:
    def cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return sdpa(q, k, v)

    return cudnn


def _xformers() -> Attention:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention


def _sage() -> Attention:
    from sageattention import sageattn

    def sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sageattn(q, k, v, tensor_layout="NHD")

    return sage


def _flash() -> Attention:
    from flash_attn import flash_attn_func

    return flash_attn_func


def _flash3() -> Attention:
    from flash_attn_interface import flash_attn_func

    def flash3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out  # older builds give the softmax statistics too

    return flash3


@dataclass(frozen=True)
class Backend:
    """package: what has to be importable. load: gives the function. dtypes: what it takes, None for everything; a back
    end with a list runs on CUDA alone."""

    package: str
    load: Callable[[], Attention]
    dtypes: tuple[torch.dtype, ...] | None = HALF


BACKENDS: dict[str, Backend] = {
    "sdpa": Backend("torch", lambda: sdpa, None),
    "cudnn": Backend("torch", _cudnn),
    "flash": Backend("flash_attn", _flash),
    "flash3": Backend("flash_attn_interface", _flash3),
    "sage": Backend("sageattention", _sage),
    "xformers": Backend("xformers", _xformers, (*HALF, torch.float32)),
}


def available_backends() -> list[str]:
    """Names of the back ends whose package is installed."""
    return [name for name, backend in BACKENDS.items() if importlib.util.find_spec(backend.package)]


def attention_backend(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Attention:
    """The attention function of a back end, for tensors on `device` in `dtype` (None: not checked).

    Raises AvatarError for one that is unknown, not installed, or cannot take such tensors.
    """
    if name not in BACKENDS:
        raise AvatarError(f"Attention back end '{name}' is not known; choose one of {', '.join(BACKENDS)}.")
    backend = BACKENDS[name]
    try:
        attention = backend.load()
    except ImportError:
        raise AvatarError(
            f"Attention back end '{name}' needs the package '{backend.package}', which cannot be imported; "
            "install it or use 'sdpa'."
        ) from None
    if backend.dtypes is not None and device is not None and torch.device(device).type != "cuda":
        raise AvatarError(f"Attention back end '{name}' runs on CUDA, not on '{device}'; use 'sdpa'.")
    if backend.dtypes is not None and dtype is not None and dtype not in backend.dtypes:
        names = " or ".join(str(kind).removeprefix("torch.") for kind in backend.dtypes)
        raise AvatarError(
            f"Attention back end '{name}' computes in {names}, not in {str(dtype).removeprefix('torch.')}; "
            "use another dtype, or 'sdpa'.",
            "dtype",
            "attention",
        )
    return attention
