"""Settings of models and of torch that hold for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from joyavatar_core.model import pointwise
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.vae import conv


@contextlib.contextmanager
def changed(owner: object, name: str, value: object) -> Iterator[None]:
    """An attribute with another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def packed(model: AvatarTransformer, together: bool) -> Iterator[None]:
    """q, k and v as one product for a while, or as three."""
    layers = [block.self_attn for block in model.blocks]
    before = [layer.packed for layer in layers]
    for layer in layers:
        if together:
            layer.pack()
        else:
            layer.packed = None
    try:
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.packed = kept


@contextlib.contextmanager
def compiled_steps(model: AvatarTransformer) -> Iterator[None]:
    """A model's steps between its products compiled, for a while."""
    with changed(model, "pointwise", pointwise.compiled()):
        yield


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions in float32 as they are on a CPU; products are so anyway."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@contextlib.contextmanager
def decoding(device: torch.device, form: str) -> Iterator[None]:
    """The autoencoder's convolutions in one form, without bands of rows, for a while."""
    before, limit = dict(conv.FORMS), conv.STACK_LIMIT
    conv.FORMS[device.type], conv.STACK_LIMIT = form, limit if device.type == "cpu" else 1 << 40
    try:
        yield
    finally:
        conv.FORMS.clear()
        conv.FORMS.update(before)
        conv.STACK_LIMIT = limit
