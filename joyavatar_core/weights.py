"""Weights of this project's own small networks, which need no configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from torch import nn

from .errors import AvatarError

Net = TypeVar("Net", bound=nn.Module)


def load_frozen(net: Net, path: str | os.PathLike[str], kind: str) -> Net:
    """A network with the weights of a safetensors file, in float32, for inference alone.

    kind: what the file should be, such as "viseme encoder". Raises AvatarError for any other file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as problem:
        detail = str(problem).splitlines()[-1].strip()
        raise AvatarError(f"'{Path(path).name}' is no {kind} of this version: {detail}") from None
    return net.eval().requires_grad_(False)
