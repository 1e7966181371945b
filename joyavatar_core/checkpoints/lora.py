"""LoRA: pairs in a state dict, their scale, and the merge onto a base, one tensor at a time in float32."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import AvatarError
from .adapter_names import ALPHA, DIFF_BIAS, A, B, adapter_role
from .quantised import rows_at_a_time
from .reader import LazyTensor

CONFIG_FILES = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class LoraScale:
    """W + alpha / rank · B A (Hu et al. 2021); None where nobody has said. The rank is checked against the tensors."""

    alpha: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Pair:
    """The two factors of one weight's change: a [r, in], b [out, r]; alpha [] where the file says it."""

    a: LazyTensor
    b: LazyTensor
    alpha: LazyTensor | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """What a LoRA changes, by the name of the tensor: products, sums, and tensors that replace the base's."""

    pairs: Mapping[str, Pair] = field(default_factory=dict)
    sums: Mapping[str, LazyTensor] = field(default_factory=dict)
    full: Mapping[str, LazyTensor] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether anything is to be added to a base."""
        return bool(self.pairs or self.sums)

    def ranks(self) -> list[int]:
        """The different ranks of its pairs."""
        return sorted({pair.rank for pair in self.pairs.values()})

    def alpha(self) -> float | None:
        """The alpha that the file says, of its first pair."""
        told = next((pair.alpha for pair in self.pairs.values() if pair.alpha is not None), None)
        return None if told is None else told.copy(torch.float32).item()


def split_lora(tensors: Mapping[str, LazyTensor]) -> Adapter:
    """Sort tensors under canonical names into an adapter's parts; without an adapter all are `full`.

    Raises AvatarError for half a pair, two adapters, and adapters that are no LoRA.
    """
    full: dict[str, LazyTensor] = {}
    layers: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in tensors.items():
        found = adapter_role(name)
        if found is None:
            full[name] = tensor
            continue
        layer, role = found
        parts = layers.setdefault(layer, {})
        if role in parts:
            raise AvatarError(f"'{layer}' has more than one LoRA adapter, expected one; split the file.")
        parts[role] = tensor
    pairs: dict[str, Pair] = {}
    sums: dict[str, LazyTensor] = {}
    for layer, parts in layers.items():
        factors = {A, B} & set(parts)
        shapes = [parts[side].shape for side in factors]
        if factors and (len(factors) == 1 or any(len(shape) < 2 or 0 in shape for shape in shapes)):
            raise AvatarError(
                f"The LoRA of '{layer}' is not a pair of matrices lora_A and lora_B (or lora_down and lora_up); "
                "download it again."
            )
        if ALPHA in parts and torch.Size(parts[ALPHA].shape).numel() != 1:
            raise AvatarError(
                f"The LoRA of '{layer}' has an alpha of shape {list(parts[ALPHA].shape)}, expected one number; "
                "download it again."
            )
        if factors:
            pairs[f"{layer}.weight"] = Pair(parts[A], parts[B], parts.get(ALPHA))
        if "diff" in parts:
            sums[f"{layer}.weight"] = parts["diff"]
        if DIFF_BIAS in parts:
            sums[f"{layer}.bias"] = parts[DIFF_BIAS]
    return Adapter(pairs, sums, full)


def scale_beside(path: Path) -> LoraScale:
    """Rank and alpha from a config.json (OmniAvatar) or adapter_config.json (PEFT) in the same folder, if there."""
    for file in (path.parent / name for name in CONFIG_FILES):
        if not file.is_file():
            continue
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            groups = [config, *(config[key] for key in ("lora", "model_config") if isinstance(config.get(key), dict))]
            alpha, rank = (
                next((group[key] for group in groups for key in keys if group.get(key) is not None), None)
                for keys in (("lora_alpha", "alpha"), ("lora_rank", "rank", "r"))
            )
            if any(group.get("use_rslora") for group in groups):
                raise AvatarError(
                    f"'{file.name}' asks for rank-stabilised LoRA, expected the plain scale alpha / rank."
                )
            if alpha is not None:
                return LoraScale(float(alpha), None if rank is None else int(rank))
        except AvatarError:
            raise
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            raise AvatarError(
                f"'{file.name}' beside the LoRA cannot be used ({problem}), expected JSON with lora_rank and "
                "lora_alpha; repair it, or give the alpha and the rank.",
                "lora_alpha",
                "lora_rank",
            ) from None
    return LoraScale()


def merge_lora(
    base: Mapping[str, LazyTensor], adapter: Adapter, scale: LoraScale, strength: float = 1.0
) -> dict[str, LazyTensor]:
    """`base` with strength · alpha / rank · B A added lazily to the weights that have a pair, and strength · diff to
    those that have a sum; computed in float32, cast back.

    The scale that is given wins over the file's. A file without full tensors that says no alpha is read as ComfyUI
    reads it, with alpha = rank. Raises AvatarError where the scale is unknown or something does not fit its weight.
    """
    merged = dict(base)
    for name, pair in adapter.pairs.items():
        rank = pair.rank
        alpha = scale.alpha
        if alpha is None and pair.alpha is not None:
            alpha = pair.alpha.copy(torch.float32).item()
        if alpha is None and adapter.full:
            raise AvatarError(
                f"The LoRA has rank {rank} but nothing says its alpha, expected lora_rank and lora_alpha in a "
                "config.json beside it; give the alpha and the rank.",
                "lora_alpha",
                "lora_rank",
            )
        if rank != (scale.rank or rank):
            raise AvatarError(
                f"The LoRA of '{name}' has rank {rank}, expected {scale.rank}; give the file's rank.", "lora_rank"
            )
        weight = changed(base, name)
        rows, columns = weight.shape[0], torch.Size(weight.shape[1:]).numel()
        a, b = pair.a.shape, pair.b.shape
        if (rows, columns) != (b[0], torch.Size(a[1:]).numel()) or torch.Size(b[1:]).numel() != rank:
            raise AvatarError(
                f"The LoRA of '{name}' is {list(b)} x {list(a)} and the weight {list(weight.shape)}, "
                "expected the base it was made for."
            )
        merged[name] = with_product(weight, pair, strength * (rank if alpha is None else alpha) / rank)
    for name, difference in adapter.sums.items():
        weight = changed(merged, name)
        if weight.shape != difference.shape:
            raise AvatarError(
                f"The LoRA adds {list(difference.shape)} to '{name}' {list(weight.shape)}, expected the base it was "
                "made for."
            )
        merged[name] = with_sum(weight, difference, strength)
    return merged


def changed(base: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    """The base's tensor that a LoRA changes."""
    if name not in base:
        raise AvatarError(f"The LoRA changes '{name}', which the base does not have; give the base it was made for.")
    return base[name]


def with_product(weight: LazyTensor, pair: Pair, factor: float) -> LazyTensor:
    def copy(dtype: torch.dtype) -> torch.Tensor:
        merged = weight.copy(weight.dtype)  # rounded to it, as if the merged file had been written and read again
        a, b = (side.copy(torch.float32).flatten(1) for side in (pair.a, pair.b))
        step = rows_at_a_time(merged)
        for rows, b_rows in zip(merged.flatten(1).split(step), b.split(step), strict=True):
            rows.copy_(torch.addmm(rows.float(), b_rows, a, alpha=factor))
        return merged.to(dtype)

    return derived(weight, copy)


def with_sum(weight: LazyTensor, difference: LazyTensor, factor: float) -> LazyTensor:
    def copy(dtype: torch.dtype) -> torch.Tensor:
        merged, added = weight.copy(weight.dtype), difference.copy(difference.dtype)
        step = rows_at_a_time(merged)
        for rows, more in zip(merged.split(step), added.split(step), strict=True):
            rows.copy_(torch.add(rows.float(), more.float(), alpha=factor))
        return merged.to(dtype)

    return derived(weight, copy)


def derived(weight: LazyTensor, copy) -> LazyTensor:
    """A tensor computed from another of the same shape and dtype; it is stored nowhere."""
    return dataclasses.replace(
        weight, view=lambda: copy(weight.dtype), copy=copy, stored=None, stored_bytes=None, fp8=None
    )
