"""A recognised checkpoint: its config and its tensors under canonical names, still unread."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch

from ..config import METADATA_KEY, AvatarConfig
from ..errors import AvatarError
from ..geometry import LATENT_CHANNELS
from ..model.fp8_linear import rounded_to_fp8
from .adapter_names import is_adapter
from .families import AVATARFORCING, Family, is_avatarforcing
from .kinds import kind_of
from .layouts import FLAT, canonical_names, layout_name
from .lora import LoraScale, merge_lora, scale_beside, split_lora
from .quantised import dequantised, rows_at_a_time
from .reader import LazyTensor, TensorFile, from_state_dict, read_file
from .releases import check_release, release_named
from .shapes import canonical_shapes, key_fingerprint, mismatch

EXPECTED = "expected a Wan2.1-style transformer (Wan2.1 T2V, Self-Forcing, LiveTalk, OmniAvatar or one of this project)"


@dataclass(frozen=True)
class Checkpoint:
    """A transformer's complete state dict, canonical and lazy, and what is known about it.

    It lives as long as something needs its tensors; a safetensors file stays mapped for as long as that.
    """

    config: AvatarConfig
    layout: str  # what was recognised, for people
    metadata: Mapping[str, str]
    lazy: Mapping[str, LazyTensor] = field(repr=False)
    merges: bool = False  # a LoRA is added to a base while reading
    family: Family | None = None  # the public release it is, where its layout tells

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.lazy.items()}

    @property
    def parameters(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.lazy.values())

    @property
    def dtypes(self) -> Counter[torch.dtype]:
        """How many parameters there are of each dtype, as they are read; quantised ones are read as bfloat16."""
        counts: Counter[torch.dtype] = Counter()
        for tensor in self.lazy.values():
            counts[tensor.dtype] += prod(tensor.shape)
        return counts

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most parameters."""
        return self.dtypes.most_common(1)[0][0]

    @property
    def in_fp8(self) -> bool:
        """Whether most of its parameters are stored as float8 and can be kept so."""
        kept = sum(prod(tensor.shape) for tensor in self.lazy.values() if tensor.fp8 is not None)
        return 2 * kept > self.parameters

    def fingerprint(self) -> str:
        """The md5 by which DiffSynth-style loaders know a key set (`key_fingerprint`)."""
        return key_fingerprint(self.shapes)

    def tensors(
        self, dtype: torch.dtype | None = None, leave: Collection[str] = ()
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Canonical (name, tensor) pairs, one at a time, in the file's dtypes or in `dtype`; without those in `leave`.

        In the file's own dtype a tensor is the mapped file itself: its pages come in when first used, are shared with
        other processes and can be dropped by the system, so the weights cost at most the file's size once. A
        conversion or a LoRA merge makes a copy and lets go of the pages it read, so that it too costs only its result.
        """
        for name, tensor in self.lazy.items():
            if name in leave:
                continue
            wanted = dtype or tensor.dtype
            yield name, tensor.copy(wanted) if self.merges or wanted != tensor.dtype else tensor.view()


def open_checkpoint(
    path: str | Path,
    *,
    base: str | Path | Checkpoint | None = None,
    lora_alpha: float | None = None,
    lora_rank: int | None = None,
    metadata: Mapping[str, str] | None = None,
    release: str | None = None,
) -> Checkpoint:
    """Recognise a transformer file of any public layout; no tensor is read yet.

    `base` is the model a LoRA was trained on, `lora_alpha` and `lora_rank` its scale where no config.json beside the
    file tells it; `metadata` replaces the file's own. `release` is a key of `RELEASES`, where the tensors do not tell
    which one it is. Raises AvatarError, saying what was found and what was expected.
    """
    path = Path(path)
    scale = LoraScale(lora_alpha, lora_rank)
    file = read_file(path)
    if lora_alpha is None and any(map(is_adapter, file.tensors)):
        beside = scale_beside(path)
        scale = LoraScale(beside.alpha, lora_rank or beside.rank)
    return recognise(file, path.name, base, scale, metadata, release)


def checkpoint_from_state_dict(
    state_dict: Mapping[str, object],
    metadata: Mapping[str, str] | None = None,
    *,
    base: str | Path | Checkpoint | None = None,
    lora_alpha: float | None = None,
    lora_rank: int | None = None,
) -> Checkpoint:
    """The same for a state dict that a host has already loaded; its tensors are shared, not copied."""
    file = from_state_dict(state_dict, "state dict", metadata)
    return recognise(file, "state dict", base, LoraScale(lora_alpha, lora_rank), None)


def recognise(
    file: TensorFile,
    label: str,
    base: str | Path | Checkpoint | None,
    scale: LoraScale,
    metadata: Mapping[str, str] | None,
    release: str | None = None,
) -> Checkpoint:
    """Canonical names, LoRA merged onto its base, config from shapes and metadata, everything checked."""
    named = None if release is None else release_named(release)
    kind = kind_of(file.tensors)
    if kind == "unknown" and base is None:
        first = next(iter(file.tensors), "none")
        raise AvatarError(f"'{label}' is no model that is known here (first tensor: '{first}'), {EXPECTED}.")
    if kind not in ("transformer", "LoRA", "unknown"):
        raise AvatarError(f"'{label}' is a {kind}, {EXPECTED}.")
    tensors = dequantised(file.tensors, label)
    names = canonical_names(tensors)
    layout = layout_name(tensors, file.containers, names)
    adapter = split_lora({name: tensors[own] for name, own in names.items()})
    full = adapter.full
    metadata = dict(file.metadata if metadata is None else metadata)
    family = None
    if base is not None:
        base = base if isinstance(base, Checkpoint) else open_checkpoint(base)
        full, family = on_base(base, full), base.family
        metadata = {**base.metadata, **metadata}
        layout = f"{layout} on {base.layout}"
    elif not all(name in full for name in (*adapter.pairs, *adapter.sums)):
        raise AvatarError(
            f"'{label}' is a LoRA ({len(adapter.pairs)} pairs) and not a whole model, expected the model it was made "
            "for as well; give that as the base (Wan2.1-T2V-1.3B for OmniAvatar-1.3B), or this file as a LoRA.",
            "base",
            "lora",
        )
    elif is_avatarforcing(tensors, adapter.pairs, full):
        family, layout = AVATARFORCING, f"{AVATARFORCING.name}, adapters not merged"
        if scale.alpha is None and adapter.ranks() == [family.lora.rank]:
            scale = family.lora
    merged = merge_lora(full, adapter, scale)
    if METADATA_KEY in file.metadata and layout in FLAT:
        layout = "JoyAvatar"
    if family and named and named is not family:
        raise AvatarError(
            f"'{label}' is {family.name} by its tensors, not {named.name}; leave the release out.", "release"
        )
    config = read_config(merged, metadata, label, family)
    if named is not None:
        check_release(release, config, label)
        config, family = dataclasses.replace(config, **named.behaviour), named
    return Checkpoint(config, layout, metadata, merged, adapter.changes, family)


def with_lora(
    checkpoint: Checkpoint, path: str | Path, strength: float = 1.0, alpha: float | None = None
) -> Checkpoint:
    """A checkpoint with a LoRA file added, in any layout that ComfyUI's own loader reads.

    alpha: in place of the file's. Without either, alpha is the rank, as in ComfyUI. Raises AvatarError for files that
    are no LoRA, that hold more than one, or that were made for another model.
    """
    path = Path(path)
    file = read_file(path)
    tensors = dequantised(file.tensors, path.name)
    names = canonical_names(tensors)
    adapter = split_lora({name: tensors[own] for name, own in names.items()})
    if not adapter.changes or adapter.full:
        raise AvatarError(
            f"'{path.name}' is no LoRA alone ({len(adapter.pairs)} pairs, {len(adapter.full)} other tensors), expected "
            "pairs of lora_A and lora_B or lora_down and lora_up; a whole model is given as the weights.",
            "weights",
        )
    scale = LoraScale(alpha) if alpha is not None or adapter.alpha() is not None else scale_beside(path)
    lazy = merge_lora(checkpoint.lazy, adapter, scale, strength)
    return dataclasses.replace(checkpoint, lazy=lazy, merges=True, layout=f"{checkpoint.layout} + {path.name}")


def rounded(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose blocks' linear layers can be kept as float8: those that are stored otherwise are rounded."""

    def in_fp8(name: str, tensor: LazyTensor) -> LazyTensor:
        linear = name.startswith("blocks.") and name.endswith(".weight") and len(tensor.shape) == 2
        if not linear or tensor.fp8 is not None:
            return tensor

        def fp8() -> tuple[torch.Tensor, torch.Tensor]:
            weight = tensor.copy(tensor.dtype)
            return rounded_to_fp8(weight, rows_at_a_time(weight))

        return dataclasses.replace(tensor, fp8=fp8)

    return dataclasses.replace(checkpoint, lazy={name: in_fp8(name, t) for name, t in checkpoint.lazy.items()})


def on_base(base: Checkpoint, full: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The release's own tensors over the base's.

    An avatar release without a patch embedding gets the base's in the channels of the noisy latent and zeros in those
    of reference and mask, as OmniAvatar initialises it.
    """
    tensors = {**base.lazy, **full}
    name = "patch_embedding.weight"
    if "audio_proj.proj.weight" in full and name not in full and not base.config.has_reference:
        tensors[name] = widened(base.lazy[name], 2 * base.config.out_channels + 1)
    return tensors


def widened(weight: LazyTensor, channels: int) -> LazyTensor:
    def copy(dtype: torch.dtype) -> torch.Tensor:
        narrow = weight.copy(dtype)  # [dim, 16, 1, 2, 2]
        wide = narrow.new_zeros(narrow.shape[0], channels, *narrow.shape[2:])
        wide[:, : narrow.shape[1]] = narrow
        return wide

    shape = (weight.shape[0], channels, *weight.shape[2:])
    return LazyTensor(shape, weight.dtype, lambda: copy(weight.dtype), copy)


def read_config(
    tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], label: str, family: Family | None = None
) -> AvatarConfig:
    """Dimensions from the shapes, behaviour from the family and then the metadata.

    The tensors must be all of that model's and no more.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        heads = AvatarConfig(num_heads=0).with_metadata(metadata).num_heads  # 0: not stated
        config = AvatarConfig.from_shapes(shapes, heads or None)
        config = dataclasses.replace(config, **(family.behaviour if family else {})).with_metadata(metadata)
    except AvatarError as problem:
        raise AvatarError(f"'{label}': {problem}") from None
    except (TypeError, ValueError, IndexError) as problem:
        raise AvatarError(f"'{label}' has malformed names, shapes or metadata ({problem}), {EXPECTED}.") from None
    if config.out_channels != LATENT_CHANNELS:
        raise AvatarError(
            f"'{label}' makes latents of {config.out_channels} channels, expected {LATENT_CHANNELS} (Wan2.1's VAE); "
            "Wan2.2 5B is not supported."
        )
    if config.in_channels != LATENT_CHANNELS and not config.has_reference:
        raise AvatarError(
            f"'{label}' takes {config.in_channels} input channels (36 is Wan image-to-video), "
            "expected 16 (text to video) or 33 (noisy latent, reference and mask)."
        )
    problem = mismatch(shapes, canonical_shapes(config))
    if problem:
        raise AvatarError(f"'{label}' does not fit: {problem}; {EXPECTED}.")
    return config
