"""LoRA: pairs in a state dict, their scale, and the merge onto a base, one tensor at a time in float32."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import AvatarError
from .reader import LazyTensor

PAIR = re.compile(r"^(?P<target>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")  # PEFT, with or without adapter name
ROWS = 256
CONFIG_FILES = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class LoraScale:
    """W + alpha / rank · B A (Hu et al. 2021); None where nobody has said. The rank is checked against the tensors."""

    alpha: float | None = None
    rank: int | None = None


def split_lora(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, dict[str, LazyTensor]]]:
    """Full tensors, and {"A": [r, in], "B": [out, r]} by the name of the weight they change.

    Raises AvatarError for half a pair, two adapters, and kinds of adapter that are not a plain product.
    """
    full: dict[str, LazyTensor] = {}
    pairs: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in tensors.items():
        match = PAIR.match(name)
        if match:
            sides = pairs.setdefault(f"{match['target']}.weight", {})
            if match["side"] in sides:
                raise AvatarError(f"'{match['target']}' has more than one LoRA adapter, expected one; split the file.")
            sides[match["side"]] = tensor
        elif ".lora_" in name:
            raise AvatarError(
                f"The adapter tensor '{name}' is not understood, expected PEFT's lora_A and lora_B; "
                "merge the adapter where it was made."
            )
        else:
            full[name] = tensor
    for name, sides in pairs.items():
        if set(sides) != {"A", "B"} or any(len(side.shape) != 2 for side in sides.values()):
            raise AvatarError(f"The LoRA of '{name}' is not a pair of matrices lora_A and lora_B; download it again.")
    return full, pairs


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
                "lora_alpha; give --lora-alpha and --lora-rank."
            ) from None
    return LoraScale()


def merge_lora(
    base: Mapping[str, LazyTensor], pairs: Mapping[str, Mapping[str, LazyTensor]], scale: LoraScale
) -> dict[str, LazyTensor]:
    """`base` with alpha / rank · B A added lazily to the weights that have a pair; computed in float32, cast back.

    Raises AvatarError where the scale is unknown or a pair does not fit its weight.
    """
    merged = dict(base)
    for name, pair in pairs.items():
        a, b = pair["A"], pair["B"]
        rank = a.shape[0]
        if scale.alpha is None:
            raise AvatarError(
                f"The LoRA has rank {rank} but nothing says its alpha, expected lora_rank and lora_alpha in a "
                "config.json beside it; give --lora-alpha and --lora-rank."
            )
        if rank != (scale.rank or rank):
            raise AvatarError(f"The LoRA of '{name}' has rank {rank}, expected {scale.rank}; correct --lora-rank.")
        if name not in base:
            raise AvatarError(
                f"The LoRA changes '{name}', which the base does not have; give the base it was made for."
            )
        weight = base[name]
        if weight.shape != (b.shape[0], a.shape[1]) or b.shape[1] != rank:
            raise AvatarError(
                f"The LoRA of '{name}' is {list(b.shape)} x {list(a.shape)} and the weight {list(weight.shape)}, "
                "expected the base it was made for."
            )
        merged[name] = sum_of(weight, a, b, scale.alpha / rank)
    return merged


def sum_of(weight: LazyTensor, a: LazyTensor, b: LazyTensor, factor: float) -> LazyTensor:
    def copy(dtype: torch.dtype) -> torch.Tensor:
        merged = weight.copy(weight.dtype)  # rounded to it, as if the merged file had been written and read again
        a32, b32 = a.copy(torch.float32), b.copy(torch.float32)
        # A few rows at a time: whole float32 temporaries left a gigabyte of holes in the heap behind.
        for rows, b_rows in zip(merged.split(ROWS), b32.split(ROWS), strict=True):
            rows.copy_(torch.addmm(rows.float(), b_rows, a32, alpha=factor))
        return merged.to(dtype)

    return LazyTensor(weight.shape, weight.dtype, lambda: copy(weight.dtype), copy)
