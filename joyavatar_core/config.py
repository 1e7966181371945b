"""What a checkpoint is: dimensions read from its tensors' shapes, behaviour from its metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .checks import is_number, is_whole
from .errors import AvatarError
from .geometry import LATENT_CHANNELS, PATCH, VIDEO_FRAMES_PER_LATENT

METADATA_KEY = "joyavatar"
SAMPLERS = ("blocks", "rolling")
HEAD_DIM = 128  # of every public Wan2.1 model
WAN_DIMENSIONS = ((1536, 30), (5120, 40))  # width and layers of Wan2.1 1.3B and 14B

# The public student's trained noise levels as (timestep, sigma). Its script rounds the timesteps to bfloat16
# (937.5 -> 936), its training used the rounded ones, and the update uses the exact sigma.
EXACT_LEVELS = ((1000.0, 1.0), (937.5, 0.9375), (2500 / 3, 5 / 6), (625.0, 0.625))  # Self-Forcing's
PUBLIC_LEVELS = ((1000.0, 1.0), (936.0, 0.9375), (832.0, 5 / 6), (624.0, 0.625))

TEXT_TO_VIDEO = {"levels": EXACT_LEVELS, "width": 832, "height": 480}  # of the public students that take no portrait


@dataclass(frozen=True)
class AvatarConfig:
    """Everything that differs between two avatar checkpoints.

    The first group is a fact of the state dict (`from_shapes`). The second is behaviour the tensors cannot tell;
    its defaults are the public 1.3B student's, and a checkpoint overrides them with one JSON object under the
    safetensors metadata key ``joyavatar`` (`with_metadata`, `metadata`).
    """

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    in_channels: int = 33  # 16 noisy + 16 reference + 1 mask; 16 = text to video only
    out_channels: int = LATENT_CHANNELS
    text_dim: int = 4096
    freq_dim: int = 256
    audio_dim: int = 10752  # features of one video frame; 0 = no audio branch
    audio_hidden: int = 32

    fps: int = 16
    block_frames: int = 3  # latent frames a block (K)
    levels: tuple[tuple[float, float], ...] = PUBLIC_LEVELS
    sampler: str = "blocks"  # or "rolling": a window of blocks at staggered noise levels, behind the portrait's frame
    shift: float = 5.0  # of the flow schedule, for levels that are computed
    trained_positions: int = 21  # latent frames seen in training (P)
    text_tokens: int = 512
    audio_features: str = "wav2vec2"  # or "visemes", "log-mel"
    audio_offset: int = 0  # video frames the features run ahead (+) or behind (-)
    width: int = 512  # pixels
    height: int = 512
    latent_mean: tuple[float, ...] | None = None  # None: Wan2.1's
    latent_std: tuple[float, ...] | None = None
    preset: Mapping[str, object] = field(default_factory=dict)  # {"psb": {...}, "mci": {...}, "urcr": {...}}
    trained: bool = True  # False: seeded random weights

    def __post_init__(self) -> None:
        for name, (low, high) in WHOLE.items():
            if not is_whole(getattr(self, name), low, high):
                raise AvatarError(
                    f"The checkpoint's {name} is {getattr(self, name)!r}, expected a whole number from {low} to {high}."
                )
        if not (is_number(self.shift) and self.shift > 0):
            raise AvatarError(f"The checkpoint's shift is {self.shift!r}, expected a number above 0.")
        if self.sampler not in SAMPLERS:
            raise AvatarError(f"The checkpoint's sampler is '{self.sampler}', expected one of {', '.join(SAMPLERS)}.")
        if not isinstance(self.trained, bool):
            raise AvatarError(f"The checkpoint's 'trained' is {self.trained!r}, expected true or false.")
        for name, low in (("latent_mean", -math.inf), ("latent_std", 0.0)):
            numbers = getattr(self, name)
            if numbers is not None and not (
                len(numbers) == self.out_channels and all(is_number(n) and n > low for n in numbers)
            ):
                raise AvatarError(
                    f"The checkpoint's {name} is {numbers}, expected {self.out_channels} numbers"
                    f"{' above 0' if name == 'latent_std' else ''}."
                )
        if not (
            isinstance(self.preset, Mapping)
            and set(self.preset) <= {"psb", "mci", "urcr"}
            and all(isinstance(settings, Mapping) for settings in self.preset.values())
        ):
            raise AvatarError(f"The checkpoint's preset is {self.preset!r}, expected settings of psb, mci and urcr.")
        if not self.levels or not all(0 < sigma <= 1 and timestep > 0 for timestep, sigma in self.levels):
            raise AvatarError(
                f"The checkpoint's levels are {self.levels}, expected (timestep, sigma) pairs, sigma in 0 ... 1."
            )

    @property
    def lead_frames(self) -> int:
        """Latent frames of block 0 in front of its K generated ones: the portrait's, where it stands alone."""
        return 1 if self.sampler == "rolling" else 0

    @property
    def window_frames(self) -> int:
        """Latent frames in one pass that denoises: a block, or a rolling window of as many blocks as levels."""
        return self.block_frames * (len(self.levels) if self.sampler == "rolling" else 1)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def audio_blocks(self) -> range:
        """Indices of the transformer blocks that receive the audio bias: 2 ... layers // 2."""
        return range(2, self.num_layers // 2 + 1) if self.audio_dim else range(0)

    @property
    def has_reference(self) -> bool:
        return self.in_channels == 2 * self.out_channels + 1

    @property
    def is_wan(self) -> bool:
        """Whether it has the dimensions of Wan2.1's 1.3B or 14B, of which every public avatar is a finetune."""
        return (self.dim, self.num_layers) in WAN_DIMENSIONS

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], num_heads: int | None = None) -> AvatarConfig:
        """Dimensions of a canonical state dict given as name -> shape.

        `num_heads` is needed only where a head is not 128 wide. Raises AvatarError for a model this is not.
        """
        try:
            patch = shapes["patch_embedding.weight"]
            dim = shapes["head.modulation"][-1]
            ffn_dim = shapes["blocks.0.ffn.0.weight"][0]
            text_dim = shapes["text_embedding.0.weight"][1]
            freq_dim = shapes["time_embedding.0.weight"][1]
            out_channels = shapes["head.head.weight"][0] // (patch[-1] * patch[-2])
        except (KeyError, IndexError) as missing:
            raise AvatarError(
                f"The state dict has no usable {missing}, so this is not a Wan2.1-style diffusion transformer; "
                "expected the keys of Wan2.1, LiveTalk, OmniAvatar, Self-Forcing or a checkpoint of this project."
            ) from None
        layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
        audio = shapes.get("audio_proj.proj.weight", (32, 0))
        if num_heads is None and dim % HEAD_DIM:
            raise AvatarError(
                f"The model is {dim} wide, no multiple of the usual head of {HEAD_DIM}; give num_heads in its metadata."
            )
        heads = dim // HEAD_DIM if num_heads is None else num_heads
        if not is_whole(heads, 1, dim) or dim % (2 * heads):
            raise AvatarError(f"The model is {dim} wide and cannot be split into {heads} heads of even size.")
        if tuple(patch[2:]) != PATCH:
            raise AvatarError(f"patch_embedding has a kernel of {tuple(patch[2:])}, expected {PATCH}.")
        return cls(
            dim=dim, ffn_dim=ffn_dim, num_heads=heads, num_layers=layers, in_channels=patch[1],
            out_channels=out_channels, text_dim=text_dim, freq_dim=freq_dim,
            audio_dim=audio[1] // VIDEO_FRAMES_PER_LATENT, audio_hidden=audio[0],
            **({} if patch[1] > out_channels else TEXT_TO_VIDEO),
        )  # fmt: skip

    def with_metadata(self, metadata: Mapping[str, str] | None) -> AvatarConfig:
        """This config with the behaviour named in safetensors metadata; raises AvatarError for unknown names."""
        text = (metadata or {}).get(METADATA_KEY)
        if text is None:
            return self
        try:
            values = json.loads(text)
            unknown = set(values) - set(BEHAVIOUR)
        except (ValueError, TypeError) as problem:
            raise AvatarError(f"The checkpoint's '{METADATA_KEY}' metadata is not a JSON object: {problem}.") from None
        if unknown:
            raise AvatarError(
                f"The checkpoint's metadata names {sorted(unknown)}, which this version does not know; update the pack."
            )
        for name, convert in CONVERTED.items():
            try:
                values[name] = convert(values[name]) if values.get(name) is not None else getattr(self, name)
            except (TypeError, ValueError):
                raise AvatarError(f"The checkpoint's metadata gives {name} as {values[name]}, not numbers.") from None
        return dataclasses.replace(self, **values)

    def metadata(self) -> dict[str, str]:
        """The safetensors metadata that `with_metadata` reads back: every behaviour field."""
        values = {name: getattr(self, name) for name in BEHAVIOUR}
        return {METADATA_KEY: json.dumps(values, sort_keys=True)}


WHOLE = {  # behaviour that is a whole number, and its range
    "fps": (1, 240), "block_frames": (1, 64), "trained_positions": (1, 10**6), "text_tokens": (1, 4096),
    "width": (16, 4096), "height": (16, 4096), "audio_offset": (-240, 240),
}  # fmt: skip
SHAPE_FIELDS = (  # what the tensors' shapes say, and the heads that they are split into
    "dim", "ffn_dim", "num_heads", "num_layers", "in_channels", "out_channels", "text_dim", "freq_dim", "audio_dim",
    "audio_hidden",
)  # fmt: skip
BEHAVIOUR = (
    "num_heads", "fps", "block_frames", "levels", "sampler", "shift", "trained_positions", "text_tokens",
    "audio_features", "audio_offset", "width", "height", "latent_mean", "latent_std", "preset", "trained",
)  # fmt: skip


def _floats(numbers) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


CONVERTED = {  # JSON lists -> tuples
    "latent_mean": _floats,
    "latent_std": _floats,
    "levels": lambda pairs: tuple((float(timestep), float(sigma)) for timestep, sigma in pairs),
}
