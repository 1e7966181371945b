"""The names that LoRA files give their tensors: those of PEFT, diffusers, kohya and whatever else ComfyUI reads."""

from __future__ import annotations

import re

from ..errors import AvatarError

A, B, ALPHA, DIFF, DIFF_BIAS = "A", "B", "alpha", "diff", "diff_b"
# How a name ends, and what the tensor is to its layer: W + alpha / rank * B A, W + diff, bias + diff_b.
ENDINGS = tuple(
    (re.compile(rf"(?P<layer>.+){pattern}$"), role)
    for pattern, role in (
        (r"\.lora_A(?:\.[^.]+)?(?:\.weight)?", A),  # PEFT, with or without the adapter's name
        (r"\.lora_B(?:\.[^.]+)?(?:\.weight)?", B),
        (r"\.lora_down\.weight", A),  # kohya
        (r"\.lora_up\.weight", B),
        (r"\.lora\.down\.weight", A),  # diffusers
        (r"\.lora\.up\.weight", B),
        (r"\.lora_linear_layer\.down\.weight", A),
        (r"\.lora_linear_layer\.up\.weight", B),
        (r"\.alpha", ALPHA),
        (r"\.(?:diff|w_norm)", DIFF),
        (r"\.(?:diff_b|b_norm)", DIFF_BIAS),
    )
)
# Adapters of other kinds, by a part of the name that only they have.
OTHER_KINDS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"\.dora_scale$|\.lora_magnitude_vector(?:\.|$)", "DoRA"),
        (r"\.hada_(?:w[12]|t[12])", "LoHa"),
        (r"\.lokr_(?:w[12]|t2)", "LoKr"),
        (r"\.oft_(?:blocks|diag|r)|\.oft_R(?:\.|$)", "OFT"),
        (r"\.[ab][12]\.weight$", "GLoRA"),
        (r"\.lora_mid\.weight$", "LoCon with a middle convolution"),
        (r"\.lora_[AB](?:\.[^.]+)?\.bias$", "LoRA with biases"),
        (r"\.reshape_weight$|\.set_weight$", "LoRA that replaces weights"),
    )
)
FLAT_PREFIX = re.compile(r"^(?:lora_unet_+|lycoris_|lora_transformer_)")  # kohya's names have no dots but the last
# Parts of a layer's name that have underscores of their own; everything between them is separated by underscores.
PART = re.compile(
    r"self_attn|cross_attn|text_embedding|text_embedder|time_embedding|time_embedder|time_projection|time_proj"
    r"|patch_embedding|condition_embedder|audio_cond_projs|audio_proj|proj_out|norm_out|norm_[qk]|to_(?:[qkv]|out)"
    r"|linear_[12]|[a-zA-Z0-9]+"
)


def adapter_role(name: str) -> tuple[str, str] | None:
    """(layer, role) of an adapter's tensor, None for any other tensor.

    Raises AvatarError for an adapter that is no LoRA, naming its kind.
    """
    kind = other_kind(name)
    if kind:
        raise AvatarError(
            f"The adapter tensor '{name}' is of a {kind}, expected a plain LoRA (a pair of matrices a layer); merge "
            "the adapter where it was made."
        )
    for pattern, role in ENDINGS:
        match = pattern.match(name)
        if match:
            return match["layer"], role
    if ".lora_" in name:
        raise AvatarError(
            f"The adapter tensor '{name}' is not understood, expected PEFT's lora_A and lora_B or kohya's lora_down "
            "and lora_up; merge the adapter where it was made."
        )
    return None


def other_kind(name: str) -> str | None:
    """The kind of adapter that a tensor belongs to, where it is none that can be merged here."""
    return next((kind for pattern, kind in OTHER_KINDS if pattern.search(name)), None)


def is_adapter(name: str) -> bool:
    """Whether a tensor belongs to an adapter of any kind."""
    name = with_dots(name)
    return other_kind(name) is not None or any(p.match(name) for p, role in ENDINGS if role != ALPHA)


def with_dots(name: str) -> str:
    """A name whose parts all end at a dot: 'lora_unet_blocks_0_ffn_2.alpha' (kohya) -> 'blocks.0.ffn.2.alpha',
    'x.to_q_lora.up.weight' (diffusers) -> 'x.to_q.lora.up.weight'; others unchanged."""
    name = re.sub(r"_lora\.(down|up)\.weight$", r".lora.\1.weight", name)
    match = FLAT_PREFIX.match(name)
    if not match:
        return name
    layer, dot, ending = name[match.end() :].partition(".")
    return ".".join(PART.findall(layer)) + dot + ending
