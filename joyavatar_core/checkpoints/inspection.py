"""Says what a weights file is: its kind, layout, dimensions, dtype and, where it is a known release, its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from ..config import METADATA_KEY
from ..errors import AvatarError
from ..sampling.memory import memory_needed
from .adapter_names import other_kind
from .checkpoint import Checkpoint, recognise, rounded
from .families import KNOWN
from .kinds import kind_of
from .layouts import canonical_names, layout_name, strip_prefixes
from .lora import scale_beside, split_lora
from .quantised import dequantised
from .reader import LazyTensor, TensorFile, read_file
from .releases import possible_releases
from .shapes import key_fingerprint


def describe(path: str | Path, release: str | None = None) -> dict[str, object]:
    """What a weights file is, as plain JSON values; no tensor is read.

    `release`: a key of `RELEASES`, as `open_checkpoint` takes it.
    Always has file, kind, tensors, parameters, bytes, dtype and fingerprint; the rest depends on the kind. A
    transformer that cannot be used says why under "problem". Raises AvatarError where there are no tensors to look at.
    """
    path = Path(path)
    file = read_file(path)
    kind = kind_of(file.tensors)
    facts: dict[str, object] = {"file": path.name, "kind": kind, **totals(file)}
    family = None
    if kind == "transformer" or (kind == "LoRA" and is_whole(file)):
        facts["kind"] = "transformer"
        try:
            checkpoint = recognise(file, path.name, None, scale_beside(path), None, release)
            facts |= describe_transformer(checkpoint)
            family = checkpoint.family
            possible = possible_releases(checkpoint.config) if checkpoint.config.is_wan else ()
            if possible and family is None and METADATA_KEY not in file.metadata:
                facts["release"] = f"its tensors do not tell, say it where there is a choice: {', '.join(possible)}"
        except AvatarError as problem:
            facts["problem"] = str(problem)
    elif kind == "LoRA":
        facts |= describe_lora(path, file)
    else:
        try:
            facts |= describe_other(kind, file.tensors)
        except IndexError:
            facts["problem"] = f"Its tensors have other shapes than a {kind}'s; download it again."
    family = family or KNOWN.get(str(facts["fingerprint"]))
    return facts | {"name": family.name, "terms": family.terms} if family else facts


def is_whole(file: TensorFile) -> bool:
    """Whether a file with adapters also holds the model they change."""
    return any(name.endswith("head.modulation") for name in file.tensors)


def totals(file: TensorFile) -> dict[str, object]:
    tensors = file.tensors.values()
    return {
        "tensors": len(file.tensors),
        "parameters": sum(prod(tensor.shape) for tensor in tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "dtype": formats(file.tensors),
        "fingerprint": key_fingerprint({name: tensor.shape for name, tensor in file.tensors.items()}),
    }


def formats(tensors: Mapping[str, LazyTensor]) -> str:
    """The number formats of some tensors, those of most parameters first."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[tensor.format] += prod(tensor.shape)
    return " + ".join(name for name, _ in counts.most_common())


def loading_note(checkpoint: Checkpoint, dtype: torch.dtype, in_fp8: bool = False) -> str:
    """What a checkpoint's file holds and how much memory its weights take, for a log.

    in_fp8: layers that can be kept as float8 are, and only the rest is in `dtype`.
    """
    stored = sum(tensor.nbytes for tensor in checkpoint.lazy.values()) / 2**30
    kept = kept_bytes(checkpoint, dtype, in_fp8) / 2**30
    name = ("fp8 and " if in_fp8 else "") + str(dtype).removeprefix("torch.")
    return f"{checkpoint.layout}, {formats(checkpoint.lazy)}, {stored:.2f} GiB; kept as {name}, {kept:.2f} GiB"


def kept_bytes(checkpoint: Checkpoint, dtype: torch.dtype, in_fp8: bool) -> int:
    """Bytes of the weights in memory: in `dtype`, or as float8 where they can be kept so and `in_fp8`."""
    return sum(
        prod(tensor.shape) * (1 if in_fp8 and tensor.fp8 is not None else dtype.itemsize)
        for tensor in checkpoint.lazy.values()
    )


def describe_transformer(checkpoint: Checkpoint) -> dict[str, object]:
    config = checkpoint.config
    whole, in_fp8 = (
        kept_bytes(one, torch.bfloat16, one is not checkpoint) for one in (checkpoint, rounded(checkpoint))
    )
    memory = f"{whole / 2**30:.2f} GiB in bfloat16, twice that in float32, {in_fp8 / 2**30:.2f} GiB in fp8"
    return {
        "layout": checkpoint.layout,
        "fingerprint": checkpoint.fingerprint(),
        "tensors": len(checkpoint.lazy),
        "parameters": checkpoint.parameters,
        "dtype": formats(checkpoint.lazy),
        "memory": f"{memory} (as the file is)" if checkpoint.in_fp8 else memory,
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
        "sampler": config.sampler,
        "trained_positions": config.trained_positions,
        "levels": [list(level) for level in config.levels],
        "preset": dict(config.preset),
        "trained": config.trained,
        **device_memory(checkpoint),
    }


def device_memory(checkpoint: Checkpoint) -> dict[str, str]:
    """What a stream takes on a GPU at some sizes, in GiB: as it is, and at its smallest."""
    own = (checkpoint.config.width, checkpoint.config.height)
    sizes = [own, (832, 480)] if own == (512, 512) else [own]
    eight = torch.float8_e4m3fn
    usual = {"weight_dtype": eight} if checkpoint.in_fp8 else {}
    small = {"kv_dtype": eight, "weight_dtype": eight, "decoder": "tiny", "latent_frames": 1}
    found = {}
    for size in sizes:
        most, least = (
            memory_needed(checkpoint.config, checkpoint.parameters, size, **settings).total / 2**30
            for settings in (usual, small)
        )
        found[f"memory_{size[0]}x{size[1]}"] = (
            f"{most:.1f} GiB on a GPU in bfloat16; {least:.1f} with fp8 weights and keys and a tiny decoder"
        )
    return found


def describe_lora(path: Path, file: TensorFile) -> dict[str, object]:
    kinds = sorted(filter(None, {other_kind(name) for name in file.tensors}))
    if kinds:
        return {"layout": kinds[0], "problem": f"A {kinds[0]} cannot be used; expected a plain LoRA."}
    try:
        tensors = dequantised(file.tensors, path.name)
        names = canonical_names(tensors)
        adapter = split_lora({name: tensors[own] for name, own in names.items()})
        scale = scale_beside(path)
    except AvatarError as problem:
        return {"problem": str(problem)}
    ranks, told = adapter.ranks(), adapter.alpha()
    alpha = told if told is not None else scale.alpha
    if alpha is None:
        alpha = "not stated, and has to be given" if adapter.full else "not stated: taken as the rank"
    return {
        "layout": layout_name(tensors, file.containers, names),
        "pairs": len(adapter.pairs),
        "rank": ranks[0] if len(ranks) == 1 else ranks,
        "alpha": alpha,
        "sums": len(adapter.sums),
        "full_tensors": len(adapter.full),
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
        return ", ".join(f"{label:g} (sigma {sigma:.4g})" for label, sigma in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, {}, []) else str(value)
