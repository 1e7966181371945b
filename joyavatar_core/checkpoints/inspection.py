"""Says what a weights file is: its kind, layout, dimensions, dtype and, where it is a known release, its name."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import torch

from ..errors import AvatarError
from .checkpoint import Checkpoint, recognise
from .kinds import kind_of
from .layouts import canonical_names, layout_name, strip_prefixes
from .lora import LoraScale, scale_beside, split_lora
from .reader import LazyTensor, TensorFile, read_file
from .shapes import key_fingerprint

# The public releases by the fingerprint of their keys; the transformers' is that of the canonical names.
KNOWN = {
    "9269f8db9040a9d860eaca435be61814": "Wan2.1-T2V-1.3B",
    "2bf9513c7a3e908015f11a800fc9b820": "avatar 1.3B (LiveTalk, OmniAvatar merged)",
    "883a90b12576b9b8693a08cf690998dd": "avatar 14B (OmniAvatar merged)",
    "9c8818c2cbea55eca56c7b447df170da": "umt5-xxl encoder (Wan2.1)",
    "ccc42284ea13e1ad04693284c7a09be6": "Wan2.1 VAE",
}


def describe(path: str | Path) -> dict[str, object]:
    """What a weights file is, as plain JSON values; no tensor is read.

    Always has file, kind, tensors, parameters, bytes, dtype and fingerprint; the rest depends on the kind. A
    transformer that cannot be used says why under "problem". Raises AvatarError where there are no tensors to look at.
    """
    path = Path(path)
    file = read_file(path)
    kind = kind_of(file.tensors)
    facts: dict[str, object] = {"file": path.name, "kind": kind, **totals(file)}
    if kind == "transformer":
        try:
            facts |= describe_transformer(recognise(file, path.name, None, LoraScale(), None))
        except AvatarError as problem:
            facts["problem"] = str(problem)
    elif kind == "LoRA":
        facts |= describe_lora(path, file)
    else:
        facts |= describe_other(kind, file.tensors)
    name = KNOWN.get(str(facts["fingerprint"]))
    return facts | {"name": name} if name else facts


def totals(file: TensorFile) -> dict[str, object]:
    dtypes: Counter[torch.dtype] = Counter()
    for tensor in file.tensors.values():
        dtypes[tensor.dtype] += prod(tensor.shape)
    return {
        "tensors": len(file.tensors),
        "parameters": dtypes.total(),
        "bytes": sum(count * dtype.itemsize for dtype, count in dtypes.items()),
        "dtype": " + ".join(str(dtype).removeprefix("torch.") for dtype, _ in dtypes.most_common()),
        "fingerprint": key_fingerprint({name: tensor.shape for name, tensor in file.tensors.items()}),
    }


def describe_transformer(checkpoint: Checkpoint) -> dict[str, object]:
    config = checkpoint.config
    return {
        "layout": checkpoint.layout,
        "fingerprint": checkpoint.fingerprint(),
        "tensors": len(checkpoint.lazy),
        "parameters": checkpoint.parameters,
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "heads": f"{config.num_heads} of {config.head_dim}",
        "layers": config.num_layers,
        "in_channels": config.in_channels,
        "text_dim": config.text_dim,
        "audio": f"{config.audio_dim} features a video frame into {len(config.audio_blocks)} blocks"
        if config.audio_dim
        else "none",
        "size": f"{config.width}x{config.height}",
        "fps": config.fps,
        "block_frames": config.block_frames,
        "trained_positions": config.trained_positions,
        "levels": [list(level) for level in config.levels],
        "preset": dict(config.preset),
        "trained": config.trained,
    }


def describe_lora(path: Path, file: TensorFile) -> dict[str, object]:
    names = canonical_names(file.tensors)
    facts: dict[str, object] = {"layout": layout_name(file.tensors, file.containers, names)}
    try:
        full, pairs = split_lora({name: file.tensors[own] for name, own in names.items()})
        scale = scale_beside(path)
    except AvatarError as problem:
        return facts | {"problem": str(problem)}
    ranks = sorted({pair["A"].shape[0] for pair in pairs.values()})
    return facts | {
        "pairs": len(pairs),
        "rank": ranks[0] if len(ranks) == 1 else ranks,
        "alpha": "not stated: give --lora-alpha" if scale.alpha is None else scale.alpha,
        "full_tensors": len(full),
    }


def describe_other(kind: str, tensors: dict[str, LazyTensor]) -> dict[str, object]:
    shapes = {strip_prefixes(name): tensor.shape for name, tensor in tensors.items()}
    if kind == "Wan2.1 VAE":
        out, entry = shapes.get("decoder.head.2.weight"), shapes["decoder.conv1.weight"]
        return {"base_dim": out[1] if out else None, "latent_channels": entry[1]}
    if kind == "TAEHV tiny VAE":
        return {"latent_channels": shapes["decoder.1.weight"][1]}
    if kind == "wav2vec2 audio encoder":
        hidden = next((s[0] for n, s in shapes.items() if n.endswith("feature_projection.projection.weight")), None)
        layers = {n.split("encoder.layers.")[1].split(".")[0] for n in shapes if "encoder.layers." in n}
        return {"hidden": hidden, "layers": len(layers)}
    if kind == "unknown":
        return {"first_tensors": list(tensors)[:3]}
    return {}


def format_description(description: dict[str, object]) -> str:
    """The same for people: one fact a line."""
    lines = [(key.replace("_", " "), value) for key, value in description.items()]
    width = max(len(key) for key, _ in lines)
    return "\n".join(f"{key:<{width}}  {shown(key, value)}" for key, value in lines)


def shown(key: str, value: object) -> str:
    if key == "bytes" and isinstance(value, int):
        return f"{value:,} ({value / 2**30:.2f} GiB)"
    if isinstance(value, int) and not isinstance(value, bool) and key in ("parameters", "tensors"):
        return f"{value:,}"
    if key == "levels" and isinstance(value, list):
        return ", ".join(f"{label:g} (σ {sigma:.4g})" for label, sigma in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, {}, []) else str(value)
