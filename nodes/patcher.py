"""The host's own patcher classes for our modules, and what other nodes did to a MODEL without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from math import prod
from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from .fp8 import scaled_key

COMPILED = "torch_compile_kwargs"  # in model_options, beside the wrapper that `compiled.py` runs
LORAS = "joyavatar_loras"  # in model_options, which clones take along: [(layers that fit, layers), ...]


def patcher_class() -> type[ModelPatcher]:
    """What the host's own loaders build: the class with dynamic VRAM where the host has it and has turned it on."""
    return getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)


def host_patcher(module: torch.nn.Module, device: torch.device, offload: torch.device) -> ModelPatcher:
    """A module that the host loads to `device` and moves to `offload`, in part where memory is short."""
    return _loading_all(patcher_class()(module, device, offload))


def watched_patcher(module: torch.nn.Module, device: torch.device, offload: torch.device) -> ModelPatcher:
    """`host_patcher` that counts how much of each LoRA fits, for `remarks`."""
    return _loading_all(_watching(patcher_class())(module, device, offload))


def castable(module: torch.nn.Module) -> torch.nn.Module:
    """The same module with torch's layers turned into the host's, which it casts as they are used and can offload.

    Layers of subclasses and those whose weights are computed from others stay as they are.
    """
    for layer in module.modules():
        theirs = getattr(comfy.ops.manual_cast, type(layer).__name__, None)
        if theirs is not None and type(layer).__module__.startswith("torch.nn.modules."):
            layer.__class__ = theirs
    return module


def bare_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that are in none of the host's layers (modulations, RMSNorms), by their full names."""
    for name, layer in module.named_modules():
        if not hasattr(layer, "comfy_cast_weights"):
            for own, parameter in layer.named_parameters(recurse=False):
                yield f"{name}.{own}" if name else own, parameter


def _loading_all(patcher: ModelPatcher) -> ModelPatcher:
    patcher.add_callback(CallbacksMP.ON_LOAD, load_bare)
    return patcher


def load_bare(patcher: ModelPatcher, device: torch.device, *_: Any) -> None:
    """Load the bare parameters whole, with their LoRA, whenever the host has loaded a model.

    Where memory is short the host leaves them behind, and it never patches those of a module that has modules.
    """
    for key, parameter in list(bare_parameters(patcher.model)):
        if key in patcher.patches:
            kept = patcher.backup.pop(key, None)  # from an earlier call, or loaded without its LoRA
            if kept is not None:
                comfy.utils.set_attr_param(patcher.model, key, kept.weight)
            patcher.patch_weight_to_device(key, device_to=device)
        elif parameter.device != device:
            comfy.utils.set_attr_param(patcher.model, key, parameter.to(device))


@cache
def _watching(base: type[ModelPatcher]) -> type[ModelPatcher]:
    class AvatarPatcher(base):
        def add_patches(self, patches: Mapping[Any, Any], *args: Any, **kwargs: Any) -> list[Any]:
            patches = {scaled_key(self.model, key): patch for key, patch in patches.items()}
            added = super().add_patches(patches, *args, **kwargs)
            fitting = sum(key in added and fits(patch, self.model, key) for key, patch in patches.items())
            self.model_options[LORAS] = [*self.model_options.get(LORAS, []), (fitting, len(patches))]
            return added

    return AvatarPatcher


def fits(patch: Any, module: torch.nn.Module, key: Any) -> bool:
    """Whether a LoRA's layer has the size of its weight; patches of another kind count as fitting."""
    factors, key = getattr(patch, "weights", None), key[0] if isinstance(key, tuple) else key
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
            found.append(f"{which} changes nothing: it has no layer of this model. It is probably for another model.")
        elif not fitting:
            found.append(f"{which} changes nothing: its layers have other sizes than this model's.")
        elif fitting < layers:
            found.append(f"{which} changes {fitting} of its {layers} layers; the others have other sizes.")
    options = {**model.model_options, **model.model_options.get("transformer_options", {})}
    ours = ("transformer_options", LORAS, COMPILED)
    others = [str(name) for name, value in options.items() if name not in ours and value]
    if others:
        names = ", ".join(sorted(others))
        found.append(f"{names}, set by a node before this one, has no effect on a JoyAvatar model.")
    return found
