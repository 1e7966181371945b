"""The host's own patcher classes for our modules, and what other nodes did to a MODEL without effect."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import comfy.model_patcher
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

LORAS = "joyavatar_loras"  # in model_options, which clones take along: [(layers that fit, layers), ...]


def patcher_class() -> type[ModelPatcher]:
    """What the host's own loaders build: the class with dynamic VRAM where the host has it and has turned it on."""
    return getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)


def host_patcher(module: torch.nn.Module, device: torch.device, offload: torch.device) -> ModelPatcher:
    """A module that the host loads to `device` and moves to `offload`."""
    return patcher_class()(module, device, offload)


def watched_patcher(module: torch.nn.Module, device: torch.device, offload: torch.device) -> ModelPatcher:
    """`host_patcher` that counts how much of each LoRA fits, for `remarks`."""
    return _watching(patcher_class())(module, device, offload)


@cache
def _watching(base: type[ModelPatcher]) -> type[ModelPatcher]:
    class AvatarPatcher(base):
        def add_patches(self, patches: Mapping[Any, Any], *args: Any, **kwargs: Any) -> list[Any]:
            added = super().add_patches(patches, *args, **kwargs)
            fitting = sum(key in added and fits(patch, self.model, key) for key, patch in patches.items())
            self.model_options[LORAS] = [*self.model_options.get(LORAS, []), (fitting, len(patches))]
            return added

    return AvatarPatcher


def fits(patch: Any, module: torch.nn.Module, key: Any) -> bool:
    """Whether a LoRA's layer has the size of its weight; patches of another kind count as fitting."""
    factors = getattr(patch, "weights", None)
    if getattr(patch, "name", None) != "lora" or not factors or not isinstance(key, str):
        return True
    up, down = factors[:2]
    return up.shape[0] * prod(down.shape[1:]) == comfy.utils.get_attr(module, key).numel()


def remarks(model: ModelPatcher) -> list[str]:
    """What nodes before ours did to a MODEL without effect, one sentence each."""
    found = []
    loras = model.model_options.get(LORAS, [])
    for number, (fitting, layers) in enumerate(loras, 1):
        which = f"LoRA {number} of {len(loras)}" if len(loras) > 1 else "The LoRA"
        if not layers:
            found.append(f"{which} changes nothing: it has no layer of this model; is it for another model?")
        elif not fitting:
            found.append(f"{which} changes nothing: its layers have other sizes than this model's.")
        elif fitting < layers:
            found.append(f"{which} changes {fitting} of its {layers} layers; the others have other sizes.")
    options = {**model.model_options, **model.model_options.get("transformer_options", {})}
    others = [str(name) for name, value in options.items() if name not in ("transformer_options", LORAS) and value]
    if others:
        names = ", ".join(sorted(others))
        found.append(f"{names}, set by a node before this one, has no effect on a JoyAvatar model.")
    return found
