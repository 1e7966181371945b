"""Weights into a module and onto disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ..config import AvatarConfig
from ..errors import AvatarError
from ..model.fp8_linear import Fp8Weight
from ..paths import replacing
from .checkpoint import Checkpoint
from .shapes import canonical_shapes, mismatch


def load_into(module: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
    """Give a module (best built on the meta device) the checkpoint's tensors as its parameters, strictly.

    With `dtype` None the parameters keep the file's dtypes and are the mapped file itself (see `Checkpoint.tensors`;
    writing to one copies its page), so the file must not be overwritten in place while the module lives. Layers that
    can keep float8 (`Fp8Weight`) get what can be kept so as the file's own float8 and its scale, whatever the dtype.
    Raises AvatarError naming up to three missing, unexpected or misshapen tensors.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problem = mismatch(checkpoint.shapes, expected)
    if problem:
        raise AvatarError(f"The checkpoint ({checkpoint.layout}) does not fit the model: {problem}.")
    state = {}
    for path, layer in module.named_modules():
        kept = checkpoint.lazy.get(f"{path}.weight")
        if isinstance(layer, Fp8Weight) and kept is not None and kept.fp8 is not None:
            state[f"{path}.weight"], scale = kept.fp8()
            layer.set_scale(scale)
    state.update(checkpoint.tensors(dtype, leave=set(state)))
    module.load_state_dict(state, strict=True, assign=True)


def save_checkpoint(path: str | Path, state_dict: Mapping[str, torch.Tensor], config: AvatarConfig) -> None:
    """Write a canonical state dict and its config as safetensors; the file appears whole or not at all.

    Raises AvatarError where the tensors are not those of the config or the file cannot be written.
    """
    path = Path(path)
    problem = mismatch({name: tuple(tensor.shape) for name, tensor in state_dict.items()}, canonical_shapes(config))
    if problem:
        raise AvatarError(f"'{path.name}' was not written because the state dict does not fit its config: {problem}.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    try:
        with replacing(path, shared=True) as unfinished:
            save_file(tensors, unfinished, metadata=config.metadata())
    except (OSError, SafetensorError) as problem:
        raise AvatarError(f"Cannot write '{path}' ({problem}); expected a folder that exists and has room.") from None
