"""The options of `load_avatar`: the files of an avatar, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..distributed.team import Team

EMBEDDED = "embedded"  # in place of a file: the one that comes with the project
FULL_DECODER = "vae"  # in place of a decoder's file: the VAE's own
WEIGHT_DTYPES = ("auto", "fp8", "full")


@dataclass(frozen=True, kw_only=True)
class AvatarOptions:
    """The files of an avatar and how it runs. Equal options give equal avatars.

    weights: the transformer, a file or `embedded`.
    vae: the VAE it was trained with, a file or `embedded`.
    decoder: a faster decoder of the same latents, a file, or `vae` for the VAE's own. None is the embedded tiny decoder
        for the embedded avatar with its VAE, else the VAE's own.
    audio_encoder: for checkpoints with wav2vec2 features; None where the features need no file.
    base: the base model, where `weights` is published as a LoRA.
    lora_alpha, lora_rank: the scale of that LoRA, where neither its file nor a config.json states it.
    release: a key of `checkpoints.releases.RELEASES`; None is what the tensors of `weights` tell.
    loras: (file, strength) of every LoRA on top of the model.
    device: where the avatar runs.
    dtype: of the transformer. None is that of most of the file's parameters, bfloat16 for quantised files and float32
        for the embedded avatar, which is stored in half precision to be small.
    weight_dtype: how the transformer's linear layers are kept: "fp8", as float8; "full", in the dtype; "auto", as
        float8 where the file has them so. They are computed in the dtype.
    attention: a key of `model.attention.BACKENDS`.
    compiled: fuse the element-wise steps with torch.compile.
    team: the processes that share the avatar's work, of which this one leads; None for one process.
    """

    weights: str | Path = EMBEDDED
    vae: str | Path = EMBEDDED
    decoder: str | Path | None = None
    audio_encoder: str | Path | None = None
    base: str | Path | None = None
    lora_alpha: float | None = None
    lora_rank: int | None = None
    release: str | None = None
    loras: tuple[tuple[str | Path, float], ...] = ()
    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None
    weight_dtype: str = "auto"
    attention: str = "sdpa"
    compiled: bool = False
    team: Team | None = None

    @property
    def name(self) -> str:
        """What the user called the weights, with their LoRAs."""
        return " + ".join(Path(file).name for file in (self.weights, *(path for path, _ in self.loras)))


EMBEDDED_AVATAR = AvatarOptions()
