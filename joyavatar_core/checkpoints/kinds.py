"""Tells the models of a Wan2.1 avatar pipeline, and this project's own networks, apart by their tensors' names."""

from __future__ import annotations

from collections.abc import Iterable

from .adapter_names import is_adapter

ADAPTER = "any adapter's tensor"

# (kind, names of which all must end some tensor's name at a dot); the first that fits is the answer.
SIGNS = (
    ("LoRA", (ADAPTER,)),
    ("transformer", ("patch_embedding.weight", "head.modulation")),
    ("transformer", ("patch_embedding.weight", "condition_embedder.time_proj.weight")),
    ("Wan2.1 VAE", ("decoder.middle.0.residual.0.gamma", "decoder.conv1.weight")),
    ("diffusers VAE", ("decoder.conv_in.weight", "post_quant_conv.weight")),
    ("TAEHV tiny VAE", ("decoder.1.weight", "decoder.3.conv.0.weight")),
    ("wav2vec2 audio encoder", ("feature_extractor.conv_layers.0.conv.weight",)),
    ("MultiTalk / InfiniteTalk audio adapter", ("blocks.0.audio_cross_attn.q_linear.weight",)),
    ("umt5 text encoder", ("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight")),
    ("umt5 text encoder", ("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight")),
    ("JoyAvatar viseme encoder", ("first.weight", "layers.0.wide.weight", "pool.weight")),
    ("JoyAvatar face locator", ("stem.2.0.weight", "layers.3.0.weight", "head.weight")),
    ("JoyAvatar face aligner", ("layers.0.weight", "correction.weight")),
    ("JoyAvatar person finder", ("down.0.0.weight", "up.0.0.weight", "person.weight")),
    ("JoyAvatar portrait refiner", ("coarse_flow.weight", "mouth_head.weight")),
    ("JoyAvatar face editor", ("usual_flow", "usual_out")),
    ("JoyAvatar latent flow", ("down.0.0.weight", "up.0.0.weight", "flow.weight")),
)


def kind_of(names: Iterable[str]) -> str:
    """One of the kinds above or "unknown". A LoRA that comes with full tensors (OmniAvatar's release) is a LoRA."""
    names = list(names)

    def found(sign: str) -> bool:
        if sign == ADAPTER:
            return any(map(is_adapter, names))
        return any(name == sign or name.endswith("." + sign) for name in names)

    return next((kind for kind, signs in SIGNS if all(map(found, signs))), "unknown")
