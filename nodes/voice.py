"""A voice as the lazy audio recipe of a stream."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..joyavatar_core.audio import ArrayAudio, AudioFeatures, FeatureEncoder, Wav2Vec2
from ..joyavatar_core.audio.survey import check_voice
from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.pipeline.avatar import built_in_encoder
from .model import avatar_of
from .patcher import castable, host_patcher
from .stream import HostVoice
from .types import CATEGORY, Voice

_encoders: WeakKeyDictionary[object, tuple[Wav2Vec2, ModelPatcher]] = WeakKeyDictionary()  # per AUDIO_ENCODER


class JoyAvatarAudioEncode(io.ComfyNode):
    """Bind a waveform to the audio features that a checkpoint needs. Each block computes its own features."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarAudioEncode",
            display_name="JoyAvatar Audio Encode",
            category=CATEGORY,
            description="Prepares the voice that drives the lips. Features are computed block by block during "
            "generation, so a long voice needs no memory beyond its waveform.",
            inputs=[
                io.Audio.Input(
                    "audio", tooltip="The voice: any sample rate, mono or stereo. The first item of a batch is used."
                ),
                io.Model.Input("model", tooltip="From Load JoyAvatar Model. Determines the audio features."),
                io.Float.Input(
                    "max_seconds",
                    default=0.0,
                    min=0.0,
                    max=864000.0,
                    step=0.1,
                    tooltip="Use only this many seconds of the voice; 0 uses all of it.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="From Load Audio Encoder: wav2vec2-base-960h, for checkpoints that were trained on it. The "
                    "embedded avatar needs none.",
                ),
            ],
            outputs=[Voice.Output("voice", "voice", tooltip="The driving voice, for the JoyAvatar Streaming Sampler.")],
        )

    @classmethod
    def execute(
        cls, audio: dict, model: object, max_seconds: float, audio_encoder: object | None = None
    ) -> io.NodeOutput:
        config = avatar_of(model).config
        source = waveform_of(audio, max_seconds)
        check_voice(source, "The voice")
        encoder, patcher = encoder_for(config, audio_encoder)
        features = None
        if encoder is not None:
            features = AudioFeatures(
                source, encoder, config.fps, config.block_frames, offset=config.audio_offset, lead=config.lead_frames
            )
        return io.NodeOutput(HostVoice(source, features, patcher))


def waveform_of(audio: dict | None, max_seconds: float = 0.0) -> ArrayAudio:
    """A host's AUDIO as a source, the first of its batch, cut after `max_seconds` (0: not at all)."""
    if not audio or audio.get("waveform") is None:
        raise AvatarError("There is no audio here, expected a waveform; connect Load Audio or another AUDIO.")
    waveform, sample_rate = audio["waveform"], audio["sample_rate"]
    if waveform.ndim == 3 and len(waveform):
        waveform = waveform[0]  # [channels, samples]
    if max_seconds:
        waveform = waveform[..., : max(1, round(max_seconds * sample_rate))]
    return ArrayAudio(waveform, sample_rate)


def encoder_for(
    config: AvatarConfig, audio_encoder: object | None
) -> tuple[FeatureEncoder | None, ModelPatcher | None]:
    """The audio encoder that a checkpoint needs, and its model for the host to load.

    Raises AvatarError if the encoder is missing or a different one is connected.
    """
    if not config.audio_dim or config.audio_features != "wav2vec2":
        if config.audio_dim and audio_encoder is not None:
            raise AvatarError(
                f"This checkpoint uses {config.audio_features} features, which need no audio encoder; "
                "disconnect audio_encoder."
            )
        return built_in_encoder(config), None
    if audio_encoder is None:
        raise AvatarError(
            "This checkpoint uses wav2vec2 features and no audio_encoder is connected; add Load Audio Encoder with "
            "facebook/wav2vec2-base-960h's model.safetensors."
        )
    if audio_encoder not in _encoders:
        # In float32, as the checkpoints were trained; the host keeps its own copy in half precision.
        encoder = Wav2Vec2.load(audio_encoder.get_sd(), dtype=torch.float32)
        theirs = audio_encoder.patcher
        # In a list, since the host sets .device of what it loads and this model has a property of that name.
        held = torch.nn.ModuleList([castable(encoder.model)])
        patcher = host_patcher(held, theirs.load_device, theirs.offload_device)
        encoder.device = theirs.load_device  # wherever the weights are
        _encoders[audio_encoder] = (encoder, patcher)
    encoder, patcher = _encoders[audio_encoder]
    if encoder.feature_dim != config.audio_dim:
        raise AvatarError(
            f"This audio encoder gives {encoder.feature_dim} numbers a frame and the checkpoint wants "
            f"{config.audio_dim}; connect facebook/wav2vec2-base-960h (or the encoder it was trained with)."
        )
    return encoder, patcher
