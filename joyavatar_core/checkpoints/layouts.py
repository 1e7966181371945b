"""Public checkpoint layouts: from the names a file uses to the canonical names of Wan2.1 and OmniAvatar."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import AvatarError
from .adapter_names import is_adapter, with_dots

# Left in the names by FSDP, activation checkpointing, torch.compile, (Distributed)DataParallel and PEFT, anywhere.
LEFTOVERS = re.compile(
    r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module|base_layer)\."
)
# Where a flat file holds more than the network to run (a critic, a VAE), only these names count; first match wins.
SELECTED = ("generator_ema.", "generator.", "model.diffusion_model.")
PREFIXES = (
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "pipe.dit.", "transformer.", "unet.",
    "generator_ema.", "generator.", "model.",
)  # fmt: skip
# The discriminator that Self-Forcing's GAN variant hangs on the generator.
GAN_EXTRAS = re.compile(r"(?:^|\.)(?:_cls_pred_branch|_register_tokens|_gan_ca_blocks)(?:\.|$)")

FLAT = ("Wan2.1", "LiveTalk / OmniAvatar merged")  # without and with the audio branch

# diffusers' WanTransformer3DModel; its norm2 is the affine norm before cross-attention, norm3 here.
DIFFUSERS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
        (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
        (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
        (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
        (r"^condition_embedder\.time_proj\.", "time_projection.1."),
        (r"^scale_shift_table$", "head.modulation"),
        (r"^proj_out\.", "head.head."),
        (r"^(blocks\.\d+)\.attn1\.", r"\1.self_attn."),
        (r"^(blocks\.\d+)\.attn2\.", r"\1.cross_attn."),
        (r"^(blocks\.\d+\.\w+_attn)\.to_([qkv])\.", r"\1.\2."),
        (r"^(blocks\.\d+\.\w+_attn)\.to_out\.0\.", r"\1.o."),
        (r"^(blocks\.\d+)\.ffn\.net\.0\.proj\.", r"\1.ffn.0."),
        (r"^(blocks\.\d+)\.ffn\.net\.2\.", r"\1.ffn.2."),
        (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
        (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    )
)


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> the file's own name, for every tensor that belongs to the network.

    LoRA tensors keep their ending. Names that are not understood pass unchanged, for a strict check to find.
    Raises AvatarError where two tensors would get one name.
    """
    stripped = {own: LEFTOVERS.sub("", with_dots(own)) for own in names}
    for prefix in SELECTED:
        chosen = {own: name for own, name in stripped.items() if name.startswith(prefix)}
        if chosen:
            stripped = chosen
            break
    stripped = {own: strip_prefixes(name) for own, name in stripped.items() if not GAN_EXTRAS.search(name)}
    if is_diffusers(stripped.values()):
        stripped = {own: from_diffusers(name) for own, name in stripped.items()}
    canonical: dict[str, str] = {}
    for own, name in stripped.items():
        if name in canonical:
            raise AvatarError(
                f"The tensors '{canonical[name]}' and '{own}' both mean '{name}', expected one network; split the file."
            )
        canonical[name] = own
    return canonical


def strip_prefixes(name: str) -> str:
    while True:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)


def is_diffusers(names: Iterable[str]) -> bool:
    return any(name.startswith("condition_embedder.") or ".attn1." in name for name in names)


def from_diffusers(name: str) -> str:
    for pattern, replacement in DIFFUSERS:
        name = pattern.sub(replacement, name)
    return name


def layout_name(own_names: Iterable[str], containers: tuple[str, ...], canonical: Iterable[str]) -> str:
    """What to call the layout that was recognised, for people."""
    own, canonical = list(own_names), set(canonical)
    audio = any(name.startswith("audio_proj.") for name in canonical)
    plain = [strip_prefixes(LEFTOVERS.sub("", name)) for name in own]
    if any(map(is_adapter, canonical)):
        return "OmniAvatar LoRA + audio" if audio else lora_layout(own)
    if containers:
        family = "Self-Forcing .pt" if containers[0].startswith("generator") else "PyTorch dump"
        return f"{family} ({' / '.join(containers)})"
    if is_diffusers(plain):
        return "diffusers"
    if any(name.startswith(("model.diffusion_model.", "diffusion_model.")) for name in own):
        return "ComfyUI"
    if any(name.startswith("pipe.dit.") for name in own):
        return "DiffSynth trainer"
    if any(".base_layer." in name for name in own):
        return "PEFT-merged"
    if plain != own:
        return "training wrapper leftovers"
    return FLAT[audio]


def lora_layout(own_names: list[str]) -> str:
    """What to call the layout of a LoRA file."""
    if any(with_dots(name) != name for name in own_names):
        return "LoRA (kohya)"
    if any(".lora_down." in name for name in own_names):
        return "LoRA (lora_down / lora_up)"
    if is_diffusers(strip_prefixes(name) for name in own_names):
        return "LoRA (diffusers)"
    if any(name.startswith(("diffusion_model.", "model.diffusion_model.")) for name in own_names):
        return "LoRA (ComfyUI)"
    return "LoRA (PEFT)"
