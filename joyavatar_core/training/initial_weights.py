"""A transformer's initial weights (random, or those of a public model that lacks some of them), and weight blending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import open_checkpoint
from ..checkpoints.shapes import mismatch
from ..config import AvatarConfig
from ..errors import AvatarError
from ..model.transformer import AvatarTransformer

SHARDED_METHODS = ("encode_text", "encode_audio", "project_audio")  # of a transformer, called beside its forward


def new_transformer(config: AvatarConfig) -> AvatarTransformer:
    """A transformer that starts as Wan's does: Xavier matrices, small embeddings, a head of zeros."""
    model = AvatarTransformer(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
    for embedding in (model.text_embedding, model.time_embedding):
        nn.init.normal_(embedding[0].weight, std=0.02)
    for owner in (*model.blocks, model.head):
        nn.init.normal_(owner.modulation, std=config.dim**-0.5)
    nn.init.zeros_(model.head.head.weight)
    return model


def read_weights(path: Path, base: Path | None = None) -> dict[str, Tensor]:
    """A checkpoint's weights in float32, in memory of their own."""
    return {name: tensor.clone() for name, tensor in open_checkpoint(path, base=base).tensors(torch.float32)}


def blended(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights a `share`, 0 to 1, of the way from those before a training to those after it (WiSE-FT, arXiv 2109.01903).

    Both hold the same names and shapes; the result has the types of `after`.
    """
    return {name: torch.lerp(before[name].to(tensor), tensor, share) for name, tensor in after.items()}


def start_from(path: Path, config: AvatarConfig, base: Path | None = None) -> dict[str, Tensor]:
    """The float32 weights of a checkpoint, fitted to a model that may have more inputs.

    Missing parts are added without effect, so that training starts from the checkpoint's function: input channels
    (reference, mask) with zeros, and an audio branch whose last layers are zeros. Where the features are others, only
    their first layer is new. `base` is the model that a LoRA release was trained on. Raises AvatarError where anything
    else differs.
    """
    state = read_weights(path, base)
    fresh = new_transformer(config).state_dict()
    patches = "patch_embedding.weight"
    narrow, wide = state[patches], torch.zeros_like(fresh[patches])
    if narrow.shape[1] < wide.shape[1] and narrow.shape[0] == wide.shape[0]:
        wide[:, : narrow.shape[1]] = narrow
        state[patches] = wide
    if config.audio_dim and "audio_proj.proj.weight" not in state:
        for name in (name for name in fresh if name.startswith("audio_")):
            state[name] = torch.zeros_like(fresh[name]) if name.startswith("audio_cond") else fresh[name]
    first = "audio_proj.proj.weight"
    if config.audio_dim and state[first].shape[1] != fresh[first].shape[1]:
        state |= {name: fresh[name] for name in fresh if name.startswith("audio_proj.")}
    problem = mismatch(*({name: tuple(tensor.shape) for name, tensor in one.items()} for one in (state, fresh)))
    if problem:
        raise AvatarError(f"Training cannot start from {path.name}: {problem}")
    return state
