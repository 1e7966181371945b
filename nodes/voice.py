"""A voice as the lazy audio recipe of a stream."""

from __future__ import annotations

from comfy_api.latest import io

from .types import CATEGORY, Voice


class JoyAvatarAudioEncode(io.ComfyNode):
    """Bind a waveform to the features that a checkpoint hears through; nothing is computed before a block needs it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarAudioEncode",
            display_name="JoyAvatar Audio Encode",
            category=CATEGORY,
            description="Prepares the voice that drives the lips. Features are computed block by block while the "
            "stream is made, so a long voice costs no memory beyond its waveform.",
            inputs=[
                io.Audio.Input("audio", tooltip="The voice, any sample rate, mono or stereo; of a batch the first."),
                io.Model.Input("model", tooltip="From Load JoyAvatar Model; says which features it was trained on."),
                io.Float.Input(
                    "max_seconds",
                    default=0.0,
                    min=0.0,
                    max=864000.0,
                    step=0.1,
                    tooltip="Stop after this many seconds of the voice; 0 is all of it.",
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
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
