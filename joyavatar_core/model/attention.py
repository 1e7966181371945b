"""Attention back ends behind one call; torch's scaled_dot_product_attention is the default and the reference.

The others are used where they are installed and the tensors suit them (CUDA, half precision). In bfloat16 they agree
with the default to 2e-2 of the output's scale, SageAttention (8-bit keys) to 5e-2.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..errors import AvatarError

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q [B, Tq, heads, d], k and v [B, Tk, heads, d] -> like q


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's own attention; `mask` [Tq, Tk] is True where a query may look, or a score to add."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def _xformers() -> Attention:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention


def _sage() -> Attention:
    from sageattention import sageattn

    return lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD")


def _flash() -> Attention:
    from flash_attn import flash_attn_func

    return flash_attn_func


BACKENDS: dict[str, tuple[str, Callable[[], Attention]]] = {  # name -> (package, loader)
    "sdpa": ("torch", lambda: sdpa),
    "xformers": ("xformers", _xformers),
    "sage": ("sageattention", _sage),
    "flash": ("flash_attn", _flash),
}


def available_backends() -> list[str]:
    """Names of the back ends whose package is installed."""
    return [name for name, (package, _) in BACKENDS.items() if importlib.util.find_spec(package)]


def attention_backend(name: str) -> Attention:
    """The attention function of a back end. Raises AvatarError for one that is unknown or not installed."""
    if name not in BACKENDS:
        raise AvatarError(f"Attention back end '{name}' is not known; choose one of {', '.join(BACKENDS)}.")
    package, load = BACKENDS[name]
    try:
        return load()
    except ImportError:
        raise AvatarError(
            f"Attention back end '{name}' needs the package '{package}', which cannot be imported; "
            "install it or use 'sdpa'."
        ) from None
