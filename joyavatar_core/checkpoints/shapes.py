"""What a transformer's state dict must hold: canonical names and shapes, and the fingerprint of such a list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..config import AvatarConfig
from ..geometry import CELLS_PER_TOKEN, PATCH, VIDEO_FRAMES_PER_LATENT

Shapes = Mapping[str, tuple[int, ...]]


def canonical_shapes(config: AvatarConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a transformer with these dimensions (names: Wan2.1 and OmniAvatar)."""
    dim, ffn = config.dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (dim, config.in_channels, *PATCH),
        "patch_embedding.bias": (dim,),
        "head.modulation": (1, 2, dim),
    }

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    linear("text_embedding.0", dim, config.text_dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", dim, config.freq_dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", 6 * dim, dim)
    linear("head.head", CELLS_PER_TOKEN**2 * config.out_channels, dim)
    for block in (f"blocks.{n}" for n in range(config.num_layers)):
        shapes[f"{block}.modulation"] = (1, 6, dim)
        shapes[f"{block}.norm3.weight"] = shapes[f"{block}.norm3.bias"] = (dim,)
        linear(f"{block}.ffn.0", ffn, dim)
        linear(f"{block}.ffn.2", dim, ffn)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            shapes[f"{attention}.norm_q.weight"] = shapes[f"{attention}.norm_k.weight"] = (dim,)
            for letter in "qkvo":
                linear(f"{attention}.{letter}", dim, dim)
    if config.audio_dim:
        linear("audio_proj.proj", config.audio_hidden, VIDEO_FRAMES_PER_LATENT * config.audio_dim)
        shapes["audio_proj.norm_out.weight"] = shapes["audio_proj.norm_out.bias"] = (config.audio_hidden,)
        for index in range(len(config.audio_blocks)):
            linear(f"audio_cond_projs.{index}", dim, config.audio_hidden)
    return shapes


def key_fingerprint(shapes: Shapes) -> str:
    """md5 that names a key set, as DiffSynth-style loaders compute it: sorted "key:d0_d1" and "key", comma-joined."""
    entries = [f"{name}:{'_'.join(map(str, shape))}" for name, shape in shapes.items()]
    return hashlib.md5(",".join(sorted([*entries, *shapes])).encode()).hexdigest()


def mismatch(found: Shapes, expected: Shapes) -> str | None:
    """What keeps `found` from being `expected`, as half a sentence naming up to three tensors; None if nothing does."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    problems = [
        f"{what} {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing tensors", missing), ("unexpected tensors", unexpected), ("wrong shapes", wrong))
        if names
    ]
    return "; ".join(problems) or None
