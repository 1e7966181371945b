"""AvatarStream, the frozen recipe of a talking stream, and LatentBlock, what it yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import is_whole
from ..config import SHAPE_FIELDS, AvatarConfig
from ..errors import AvatarError
from ..geometry import PIXELS_PER_TOKEN, Size, to_pixel_size, to_video_frames
from ..model.transformer import AvatarTransformer
from .mci import MCI_OFF, MciSettings
from .memory import cache_bytes, pass_bytes
from .noise import Noise
from .psb import PSB_OFF, PsbSettings
from .urcr import SLIDING_WINDOW, UrcrSettings

if TYPE_CHECKING:
    from ..audio import Features

OnStep = Callable[[int, int, int], None]  # (block, steps done, steps of this block); raise in it to stop


@dataclass(frozen=True)
class LatentBlock:
    """One generated block.

    `latents` [1, 16, K, h, w] are normalised by the checkpoint's statistics. They stand for the video frames
    first_frame ... last_frame. The decoder may give more frames for the last block: drop them.
    `features` [num_video_frames, audio_dim]: their audio features, as the encoder gives them; None without audio.
    `features_before` [n, audio_dim]: those of the video frames of the block before, none for the first block.
    `latents_before` [1, 16, 1, h, w]: the latent frame before; None for the first block.
    """

    index: int
    latents: Tensor
    first_frame: int
    last_frame: int
    steps: int
    reset: bool
    max_position: int  # highest temporal position in any of the block's passes
    seconds: float
    features: Tensor | None = None
    features_before: Tensor | None = None
    latents_before: Tensor | None = None

    @property
    def num_video_frames(self) -> int:
        """Video frames to keep of this block."""
        return self.last_frame - self.first_frame + 1


@dataclass(frozen=True, eq=False)
class AvatarStream:
    """Everything that determines a stream. A `StreamRun` makes its blocks; any number of runs give the same ones.

    model: the transformer, on its device, in its dtype.
    reference: the portrait's normalised latent [1, 16, 1, h, w]; None for checkpoints without reference channels.
    audio: the voice as lazy features; None for silence (all-zero features) or checkpoints without audio.
    text: the prompt's embeddings [1, n, text_dim], zero-padded to the checkpoint's tokens; None for an empty prompt.
    psb, mci, urcr: settings of the mechanisms; by default none of them.
    seed: of the noise.
    video_frames: most video frames; None for the length of the audio (no end without audio).
    latent_size: (width, height) in latent cells, where there is no reference.
    noise: where noise comes from; None for a NoiseSource of `seed`.
    initial_latents: normalised latents [1, 16, F, h, w] that blocks start from instead of from noise alone. They are
        noised to the block's first level, which has to be below sigma 1 for an effect (SDEdit, arXiv 2108.01073). The
        stream ends with them.
    config: the checkpoint's config as the sampler uses it; None for the model's. It may differ in behaviour, such as
        levels or trained positions, but not in the shapes of tensors.
    dtype, device: of latents and cache; None for those of the weights (a host may keep weights in another place).
    on_step: called after each denoising step.
    portrait: the portrait's picture [3, H, W] in [-1, 1] at a multiple of the stream's size, for a refiner; None where
        frames are not refined. Latents do not depend on it.
    kv_dtype: of keys and values alone, such as float8_e4m3fn for half the memory.
    graphs: on CUDA, launch each pass as one graph; weights must not move while a run lasts.
    batch: rows of the reference and of all latents; 1 but for a stream made by `batched`.
    Raises AvatarError for fields that do not fit the checkpoint or one another.
    """

    model: AvatarTransformer
    reference: Tensor | None = None
    audio: Features | None = None
    text: Tensor | None = None
    psb: PsbSettings = PSB_OFF
    mci: MciSettings = MCI_OFF
    urcr: UrcrSettings = SLIDING_WINDOW
    seed: int = 0
    video_frames: int | None = None
    latent_size: Size | None = None
    noise: Noise | None = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    on_step: OnStep | None = field(default=None, repr=False)
    portrait: Tensor | None = field(default=None, repr=False)
    kv_dtype: torch.dtype | None = None
    graphs: bool = False
    initial_latents: Tensor | None = field(default=None, repr=False)
    batch: int = 1
    config: AvatarConfig | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.config is None:
            object.__setattr__(self, "config", self.model.config)
        self._check_config()
        config = self.config
        if config.has_reference:
            if self.reference is None:
                raise AvatarError("This checkpoint animates a portrait and no reference latent was given; encode one.")
            expected = (self.batch, config.out_channels, 1)
            if self.reference.ndim != 5 or tuple(self.reference.shape[:3]) != expected:
                raise AvatarError(
                    f"The reference is {list(self.reference.shape)}, expected one latent "
                    f"[1, {config.out_channels}, 1, h, w]."
                )
            if not torch.isfinite(self.reference).all():
                raise AvatarError("The reference latent holds NaN or infinite numbers; check the portrait and the VAE.")
        elif self.latent_size is None and self.reference is None:
            raise AvatarError("This checkpoint takes no portrait, so give latent_size (width, height).")
        if self.reference is not None:
            object.__setattr__(self, "latent_size", tuple(self.reference.shape[:-3:-1]))
        width, height = self.latent_size
        if not (is_whole(width, 2, 4096) and is_whole(height, 2, 4096)) or width % 2 or height % 2:
            raise AvatarError(
                f"The latents are {width}x{height} cells; both must be even "
                f"(pictures: multiples of {PIXELS_PER_TOKEN})."
            )
        if self.audio is not None:
            self._check_audio()
        if self.text is not None and (
            self.text.ndim != 3 or self.text.shape[0] != 1 or self.text.shape[-1] != config.text_dim
        ):
            raise AvatarError(
                f"The prompt's embeddings are {list(self.text.shape)}, expected [1, tokens, {config.text_dim}]; "
                "use the text encoder that belongs to this checkpoint."
            )
        if self.text is not None and self.text.shape[1] > config.text_tokens:
            raise AvatarError(
                f"The prompt has {self.text.shape[1]} tokens, this checkpoint takes {config.text_tokens}; shorten it."
            )
        if self.text is not None and not torch.isfinite(self.text).all():
            raise AvatarError("The prompt's embeddings hold NaN or infinite numbers; encode the prompt again.")
        if self.video_frames is not None and not is_whole(self.video_frames, 1, 2**62):
            raise AvatarError(
                f"The stream is to show {self.video_frames} video frames; give a whole number, at least 1."
            )
        if self.initial_latents is not None:
            self._check_initial_latents()
        self.psb.check(config)
        self.urcr.check(config, self.mci)

    def _check_config(self) -> None:
        for name in SHAPE_FIELDS:
            mine, models = getattr(self.config, name), getattr(self.model.config, name)
            if mine != models:
                raise AvatarError(
                    f"The stream's config has {name} {mine} and its model has {models}; give a config of this model."
                )

    def _check_initial_latents(self) -> None:
        config, shape = self.config, tuple(self.initial_latents.shape)
        width, height = self.latent_size
        expected = (self.batch, config.out_channels, height, width)
        if len(shape) != 5 or (*shape[:2], *shape[3:]) != expected:
            raise AvatarError(
                f"The initial latents are {list(shape)}, expected "
                f"[1, {config.out_channels}, frames, {height}, {width}]."
            )
        blocks, rest = divmod(shape[2] - config.lead_frames, config.block_frames)
        if blocks < 1 or rest:
            raise AvatarError(
                f"The initial latents have {shape[2]} frames, expected whole blocks of {config.block_frames}"
                f"{f' behind {config.lead_frames}' if config.lead_frames else ''}."
            )
        if not torch.isfinite(self.initial_latents).all():
            raise AvatarError("The initial latents hold NaN or infinite numbers; encode the video again.")

    def _check_audio(self) -> None:
        config = self.config
        if not config.audio_dim:
            raise AvatarError("This checkpoint has no audio branch; give no audio, or use an avatar checkpoint.")
        if self.audio.feature_dim != config.audio_dim:
            raise AvatarError(
                f"The audio features have {self.audio.feature_dim} numbers a frame and this checkpoint wants "
                f"{config.audio_dim} ({config.audio_features}); use the audio encoder that belongs to it."
            )
        if self.audio.fps != config.fps:
            raise AvatarError(
                f"The audio was cut for {self.audio.fps} frames/s, this one shows {config.fps}; encode it anew."
            )
        if self.audio.block_frames != config.block_frames:
            raise AvatarError(
                f"The audio was cut for blocks of {self.audio.block_frames} latent frames, but this checkpoint makes "
                f"blocks of {config.block_frames}; encode it for this checkpoint."
            )
        if self.audio.lead != config.lead_frames:
            raise AvatarError(
                f"The audio has {self.audio.lead} leading latent frames, but this checkpoint's sampler has "
                f"{config.lead_frames}; encode it for this checkpoint."
            )

    @property
    def pixel_size(self) -> Size:
        """(width, height) in pixels of the decoded frames."""
        return to_pixel_size(self.latent_size)

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.dtype or next(self.model.parameters()).dtype

    @property
    def compute_device(self) -> torch.device:
        return self.device or next(self.model.parameters()).device

    @property
    def num_video_frames(self) -> int | None:
        """Video frames in all; None while the voice is growing, and for a stream without an end."""
        limits = [self.video_frames, self.audio.num_video_frames if self.audio is not None else None]
        if self.initial_latents is not None:
            limits.append(to_video_frames(self.initial_latents.shape[2]))
        known = [limit for limit in limits if limit is not None]
        return min(known, default=None)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that a run allocates."""
        kept = self.kv_dtype or self.compute_dtype
        return self.batch * cache_bytes(self.config, self.latent_size, self.urcr, self.mci, kept)

    @property
    def pass_bytes(self) -> int:
        """Bytes that one forward holds at its widest."""
        return self.batch * pass_bytes(self.config, self.latent_size, self.compute_dtype)

    @property
    def text_bytes(self) -> int:
        """Bytes of the prompt's keys and values in every layer; an empty prompt has none (see `encode_text`)."""
        config = self.config
        if self.text is None or not self.text.shape[1]:
            return 0
        return 2 * config.num_layers * config.text_tokens * config.dim * self.compute_dtype.itemsize
