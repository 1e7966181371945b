"""A decoder whose frames are refined: the same calls as the decoder's own, so that whatever decodes can also refine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..errors import AvatarError
from .model import SCALE, RefinerNet, compose, resized

MOST = 4  # times the stream's side that a refined picture may have


def load_refiner(path: str | Path) -> RefinerNet:
    """A refiner from a safetensors file, in float32. Raises AvatarError for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = RefinerNet()
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as problem:
        detail = str(problem).splitlines()[-1].strip()
        raise AvatarError(f"'{Path(path).name}' is no portrait refiner of this version: {detail}") from None
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
