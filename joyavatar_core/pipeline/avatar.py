"""Avatar: a transformer, a VAE and an audio encoder that belong together, loaded from files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..audio import AudioFeatures, AudioSource, Clock, FeatureEncoder, LogMel, VisemeEncoder, Wav2Vec2
from ..checkpoints import Checkpoint, checkpoint_from_state_dict, load_into, open_checkpoint, rounded, with_lora
from ..checkpoints.random_weights import RANDOM_CONFIG, random_state_dict
from ..checkpoints.reader import read_file
from ..config import AvatarConfig
from ..device import free_memory, quick_dtype
from ..errors import AvatarError
from ..framing.crop import Box
from ..framing.portrait_framing import FramedPortrait, frame_for
from ..geometry import Size, to_latent_size
from ..model import pointwise
from ..model.attention import attention_backend
from ..model.fp8_linear import Fp8Operations
from ..model.sequence_parallel import check_ranks
from ..model.transformer import AvatarTransformer
from ..refiner import (
    USUAL_MOTION,
    USUAL_SCALE,
    FaceMotion,
    PortraitRefiner,
    RefinerNet,
    carried_size,
    chosen_rate,
    refined_size,
    refining_bytes,
)
from ..sampling.memory import MemoryNeed, check_memory, memory_needed
from ..sampling.presets import Preset
from ..sampling.stream import AvatarStream
from ..vae import StreamingVAE, TinyDecoder, random_weights_vae, vae_from_state_dict
from ..video.portrait import check_size, check_trained_size
from .avatar_options import EMBEDDED, EMBEDDED_AVATAR, FULL_DECODER, AvatarOptions
from .embedded import (
    EMBEDDED_DECODER,
    EMBEDDED_TRANSFORMER,
    EMBEDDED_VAE,
    EMBEDDED_VISEME_ENCODER,
    load_embedded_refiner,
)
from .refinement import default_refine, has_refiner, no_refiner

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Avatar:
    """What a stream needs besides a portrait and a voice.

    transformer: the denoiser. vae: encodes the portrait. decoder: latents -> frames (the VAE, or a tiny decoder).
    encoder: voice -> features; None for checkpoints without audio. name: what the user called the weights.
    refiner: adds the portrait's detail to decoded frames; None for avatars that have none.
    """

    transformer: AvatarTransformer
    vae: StreamingVAE
    decoder: StreamingVAE | TinyDecoder
    encoder: FeatureEncoder | None
    name: str
    refiner: RefinerNet | None = None

    @property
    def config(self) -> AvatarConfig:
        return self.transformer.config

    def pixel_size(self, width: int | None = None, height: int | None = None) -> Size:
        """(width, height) of the frames in pixels: what is given, else the checkpoint's."""
        return width or self.config.width, height or self.config.height

    def check_memory(self, stream: AvatarStream, refine: PortraitRefiner | None = None) -> None:
        """Raise AvatarError where the GPU that the avatar is on has too little memory left for a stream of it.

        Where decoding a block at once is what is too much, the decoder goes one latent frame at a time from now on.
        refine: what refines the stream's frames; None: nothing does.
        """
        device = stream.compute_device
        if device.type != "cuda":
            return
        free = free_memory(device)
        for latent_frames in (self.config.block_frames, 1):
            need = self.memory_of(stream, latent_frames, refine)
            if need.total <= free:
                self.decoder.at_once = None if latent_frames > 1 else 1
                return
        check_memory(need, free)

    def memory_of(
        self, stream: AvatarStream, latent_frames: int | None = None, refine: PortraitRefiner | None = None
    ) -> MemoryNeed:
        """What a stream of this avatar takes besides the weights.

        latent_frames: decoded at once, by default a whole block. refine: as in `check_memory`.
        """
        need = memory_needed(
            self.config, 0, stream.pixel_size, urcr=stream.urcr, mci=stream.mci, dtype=stream.compute_dtype,
            kv_dtype=stream.kv_dtype, decoder=self.decoder.kind, base=self.decoder.dim,
            latent_frames=latent_frames or self.config.block_frames, ranks=self.transformer.ranks,
        )  # fmt: skip
        refining = 0 if refine is None else refining_bytes(refine.pixel_size, self.config.block_frames, refine.rate)
        return replace(need, decoder=0, working=need.working + refining)

    @torch.no_grad()
    def encode_portrait(self, picture: Tensor) -> Tensor:
        """A portrait [3, H, W] in [-1, 1] as its normalised latent [1, 16, 1, H/8, W/8]."""
        return self.vae.encode(picture[None, :, None].to(self.vae.compute_device, self.vae.compute_dtype))

    def frame(
        self, portrait: object, pixel_size: Size | None = None, crop: str | Box = "face", background: str = "white"
    ) -> FramedPortrait:
        """A portrait as the avatar starts with it; arguments as `frame_for`."""
        detail = 1 if self.refiner is None else USUAL_SCALE
        return frame_for(self.config, portrait, pixel_size or self.pixel_size(), crop, background, detail)

    def stream(
        self,
        portrait: object,
        voice: AudioSource | None,
        preset: Preset,
        *,
        pixel_size: Size | None = None,
        **fields: object,
    ) -> AvatarStream:
        """The recipe of a talking stream: a portrait, a voice, and the mechanisms' settings.

        portrait: what `frame` gives, or any picture, which is then framed by the face.
        pixel_size: (width, height), default the framed portrait's or the checkpoint's. `fields` are AvatarStream's:
        text, seed, video_frames, on_step. Raises AvatarError for whatever cannot work.
        """
        framed_size = portrait.pixel_size if isinstance(portrait, FramedPortrait) else None
        width, height = pixel_size or framed_size or self.pixel_size()
        if framed_size not in (None, (width, height)):
            raise AvatarError(
                f"The portrait was framed for {framed_size[0]}x{framed_size[1]} pixels and the stream has "
                f"{width}x{height}; frame it for that size.",
                "size",
            )
        config = self.config
        check_size(width, height)
        larger = check_trained_size(width, height, config)
        if larger and not config.has_reference:  # else said when the portrait was framed
            log.warning("%s", larger)
        reference = None
        if config.has_reference:
            framed = portrait if isinstance(portrait, FramedPortrait) else self.frame(portrait, (width, height))
            reference = self.encode_portrait(framed.pixels)
        audio = None
        if voice is not None and config.audio_dim:
            audio = AudioFeatures(
                voice,
                self.encoder,
                config.fps,
                config.block_frames,
                offset=config.audio_offset,
                lead=config.lead_frames,
            )
        elif voice is not None:  # a checkpoint without audio input: the voice only sets the length of the video
            if voice.num_samples is None:
                raise AvatarError(
                    "This checkpoint has no audio input and cannot follow a live voice; choose one with audio input."
                )
            length = Clock(voice.sample_rate, config.fps).num_frames(voice.num_samples)
            fields["video_frames"] = min(length, fields.get("video_frames") or length)
        picture = None
        if reference is not None and self.refiner is not None:
            picture = framed.at(*carried_size(framed))
        return AvatarStream(
            self.transformer, reference, audio, psb=preset.psb, mci=preset.mci, urcr=preset.urcr,
            latent_size=to_latent_size((width, height)), portrait=picture, **fields,
        )  # fmt: skip

    def refine(
        self, stream: AvatarStream, setting: str | int | None = None, motion: FaceMotion = USUAL_MOTION
    ) -> PortraitRefiner | None:
        """What refines a stream's frames, None where they stay as decoded.

        setting: as in `refined_size`; None is "on" where the avatar has a refiner. motion: of the face and its frame
        rate. Raises AvatarError for settings out of bounds, and for avatars without a refiner.
        """
        size = refined_size(default_refine(self) if setting is None else setting, stream.pixel_size)
        chosen_rate(self.config.fps, motion.fps, refined=size is not None)
        if size is None:
            return None
        if self.refiner is None:
            raise no_refiner(self.name)
        return PortraitRefiner.of(self.refiner, stream, self.decoder, size, motion)


def load_avatar(options: AvatarOptions = EMBEDDED_AVATAR) -> Avatar:
    """Load an avatar from files, by default the one that comes with the project.

    Raises AvatarError for files that are not what they should be or do not belong together, and where a process of the
    team cannot load its part.
    """
    weights, vae, device, team = options.weights, options.vae, options.device, options.team
    checkpoint = open_weights(options)
    if weights == EMBEDDED and options.release is not None:
        raise AvatarError(
            f"The embedded avatar is no public release, so it cannot be '{options.release}'; leave it out.", "release"
        )
    config = checkpoint.config
    if not config.trained:
        log.warning("no trained avatar in this copy: seeded random weights are used, the picture has no meaning")
    if weights != EMBEDDED and vae == EMBEDDED:
        raise AvatarError(
            f"The embedded VAE belongs to the embedded avatar; give the VAE of '{Path(weights).name}', "
            "which is Wan2.1's for public checkpoints.",
            "vae",
        )
    encoder = load_audio_encoder(config, options.audio_encoder, device)
    wan = load_vae(vae, config).to(device, encoding_dtype(options, checkpoint))
    transformer = load_transformer(options, checkpoint)
    own = decoder_file(options) is None and decoding_dtype(options, checkpoint) == wan.compute_dtype
    decoder = wan if own else load_decoding(options, checkpoint)
    if team is not None:
        team.ready()
        transformer, decoder = team.share(transformer), team.decode_there(decoder)
    return Avatar(
        transformer=transformer,
        vae=wan,
        decoder=decoder,
        encoder=encoder,
        name=options.name,
        refiner=load_embedded_refiner().to(device) if has_refiner(options) else None,
    )


def take_part(options: AvatarOptions) -> None:
    """What the other processes of a team do in place of `load_avatar`: load a part and serve the leader until it ends.

    A process that cannot load its part says so to the leader. Raises RuntimeError if the leader ends without a message.
    """
    team = options.team
    try:
        checkpoint = open_weights(options)
        part = load_decoding(options, checkpoint) if team.decodes else load_transformer(options, checkpoint)
    except AvatarError as problem:
        team.ready(str(problem))
    team.ready()
    team.follow(part)


def open_weights(options: AvatarOptions) -> Checkpoint:
    """The transformer's checkpoint with its LoRAs, not read yet. Raises AvatarError."""
    checkpoint = open_embedded() if options.weights == EMBEDDED else open_checkpoint(
        options.weights, base=options.base, lora_alpha=options.lora_alpha, lora_rank=options.lora_rank,
        release=options.release,
    )  # fmt: skip
    for path, strength in options.loras:
        checkpoint = with_lora(checkpoint, path, strength)
    if options.team is not None:
        check_ranks(checkpoint.config.num_heads, options.team.ranks)
    return checkpoint


def transformer_dtype(options: AvatarOptions, checkpoint: Checkpoint) -> torch.dtype:
    """The dtype in the options; without one, float32 for the embedded avatar and the file's dtype for others."""
    return options.dtype or (torch.float32 if options.weights == EMBEDDED else checkpoint.dtype)


def encoding_dtype(options: AvatarOptions, checkpoint: Checkpoint) -> torch.dtype:
    """float32 on a CPU. On a GPU the transformer's dtype, because float32 is four times slower there."""
    on_gpu = torch.device(options.device).type == "cuda"
    return transformer_dtype(options, checkpoint) if on_gpu else torch.float32


def decoding_dtype(options: AvatarOptions, checkpoint: Checkpoint) -> torch.dtype:
    """The dtype of encoding. For the embedded avatar on a CPU: the CPU's quick dtype, unless another is asked for."""
    on_cpu = options.weights == EMBEDDED and torch.device(options.device).type == "cpu"
    quick = quick_dtype("cpu") if on_cpu else None
    return quick if quick and options.dtype in (None, quick) else encoding_dtype(options, checkpoint)


def load_decoding(options: AvatarOptions, checkpoint: Checkpoint) -> StreamingVAE | TinyDecoder:
    """What turns latents into frames, on the options' device, ready to run."""
    path, config = decoder_file(options), checkpoint.config
    decoder = load_vae(options.vae, config) if path is None else load_decoder(path, config)
    return decoder.to(options.device, decoding_dtype(options, checkpoint))


def load_transformer(options: AvatarOptions, checkpoint: Checkpoint) -> AvatarTransformer:
    """The checkpoint's transformer on the options' device, ready to run."""
    in_fp8 = options.weight_dtype == "fp8" or (options.weight_dtype == "auto" and checkpoint.in_fp8)
    if options.weight_dtype == "fp8":
        checkpoint = rounded(checkpoint)
    with torch.device("meta"):
        transformer = AvatarTransformer(checkpoint.config, Fp8Operations if in_fp8 else nn)
    dtype = transformer_dtype(options, checkpoint)
    transformer.attention = attention_backend(options.attention, options.device, dtype)
    load_into(transformer, checkpoint, dtype)
    transformer.to(options.device).eval().requires_grad_(False)
    if torch.device(options.device).type == "cuda" and not in_fp8:
        for block in transformer.blocks:
            block.self_attn.pack()
    if options.compiled:
        transformer.pointwise = pointwise.compiled()
    return transformer


def open_embedded() -> Checkpoint:
    """The avatar in the package, or seeded random weights if it is missing."""
    if EMBEDDED_TRANSFORMER.exists():
        return open_checkpoint(EMBEDDED_TRANSFORMER)
    return checkpoint_from_state_dict(random_state_dict(), RANDOM_CONFIG.metadata())


def load_vae(path: str | Path, config: AvatarConfig) -> StreamingVAE:
    """The VAE that encodes the portrait, with the checkpoint's latent statistics."""
    if path == EMBEDDED and not EMBEDDED_VAE.exists():
        if EMBEDDED_TRANSFORMER.exists():
            raise AvatarError("The embedded avatar's VAE is missing from this copy; install the pack again.")
        return random_weights_vae()
    vae = _read_vae(EMBEDDED_VAE if path == EMBEDDED else path, config)
    if not isinstance(vae, StreamingVAE):
        raise AvatarError(
            f"'{Path(path).name}' is a tiny decoder and cannot encode the portrait; "
            "give a Wan2.1 VAE as the VAE and this file as the decoder.",
            "vae",
            "decoder",
        )
    return vae


def decoder_file(options: AvatarOptions) -> str | Path | None:
    """The file of the decoder that is used instead of the VAE's own; None where that decodes."""
    if options.decoder is not None:
        return None if options.decoder == FULL_DECODER else options.decoder
    own = options.weights == options.vae == EMBEDDED and EMBEDDED_DECODER.exists()
    return EMBEDDED_DECODER if own else None


def load_decoder(path: str | Path, config: AvatarConfig) -> StreamingVAE | TinyDecoder:
    """A decoder to use instead of the VAE's own: taew2_1, or another VAE of the same latents."""
    return _read_vae(path, config)


def _read_vae(path: str | Path, config: AvatarConfig) -> StreamingVAE | TinyDecoder:
    tensors = read_file(path).tensors
    state = {name: tensor.copy(torch.float32) for name, tensor in tensors.items()}  # small enough to keep exact
    return vae_from_state_dict(state, config.latent_mean, config.latent_std)


def load_audio_encoder(
    config: AvatarConfig, path: str | Path | None, device: torch.device | str = "cpu"
) -> FeatureEncoder | None:
    """The audio encoder a checkpoint was trained with. Raises AvatarError where it needs a file and none is given."""
    if not config.audio_dim or config.audio_features != "wav2vec2":
        return built_in_encoder(config, path)
    if path is None:
        raise AvatarError(
            "This checkpoint needs wav2vec2 features; give facebook/wav2vec2-base-960h's model.safetensors.",
            "audio_encoder",
        )
    return Wav2Vec2.load(path, device=device)


def built_in_encoder(config: AvatarConfig, visemes: str | Path | None = None) -> FeatureEncoder | None:
    """The audio encoder of a checkpoint that needs no separate file; None for a checkpoint without audio input.

    visemes: weights used instead of the embedded ones, for checkpoints with viseme features.
    Raises AvatarError for features that this version does not know.
    """
    if not config.audio_dim:
        return None
    if config.audio_features == "log-mel":
        return LogMel()
    if config.audio_features == "visemes":
        return VisemeEncoder.load(visemes or EMBEDDED_VISEME_ENCODER)
    raise AvatarError(
        f"The checkpoint wants '{config.audio_features}' features; known are log-mel, visemes and wav2vec2."
    )


def load_prompt(path: str | Path, config: AvatarConfig) -> Tensor:
    """A prompt's embeddings [1, n, text_dim] from a file that holds one tensor [n, text_dim] or [1, n, text_dim]."""
    tensors = list(read_file(path).tensors.values())
    if len(tensors) != 1 or len(tensors[0].shape) not in (2, 3) or tensors[0].shape[-1] != config.text_dim:
        found = ", ".join(str(list(tensor.shape)) for tensor in tensors[:3])
        raise AvatarError(
            f"'{Path(path).name}' holds {found}, expected one prompt tensor [1, tokens, {config.text_dim}]; "
            "make it with 'joyavatar encode-prompt'."
        )
    tensor = tensors[0].copy(torch.float32)
    return tensor if tensor.ndim == 3 else tensor.unsqueeze(0)
