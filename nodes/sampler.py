"""Everything a stream needs, checked and bound together; nothing is generated here."""

from __future__ import annotations

from comfy_api.latest import io

from ..joyavatar_core.sampling.presets import PRESETS
from .types import CATEGORY, Continuity, Psb, Stream, Voice


class JoyAvatarStreamingSampler(io.ComfyNode):
    """The recipe of a talking stream; the Stream nodes behind it pull its blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamingSampler",
            display_name="JoyAvatar Streaming Sampler",
            category=CATEGORY,
            description="Binds model, portrait and voice into a stream of latent blocks, and checks that they belong "
            "together. It is lazy: a Stream node pulls it block by block, and each Stream node samples it anew.",
            inputs=[
                io.Model.Input("model", tooltip="From Load JoyAvatar Model, with or without LoRAs."),
                io.Latent.Input(
                    "reference",
                    tooltip="From JoyAvatar Reference: one latent frame. Checkpoints that take no portrait use only "
                    "its size.",
                ),
                Voice.Input("voice", tooltip="From JoyAvatar Audio Encode; the video is as long as this voice."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="checkpoint",
                    tooltip="PSB, MCI and URCR settings where none are wired. 'checkpoint': what its maker recommends. "
                    "'joyavatar': all three on. 'plain': all off, as the public student models run.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Same seed and inputs on the same machine, same video.",
                ),
                io.Conditioning.Input(
                    "prompt",
                    optional=True,
                    tooltip="From CLIP Text Encode with the text encoder the checkpoint was trained with (umt5-xxl for "
                    "Wan 2.1). Without it: an empty prompt.",
                ),
                Psb.Input("psb", optional=True, tooltip="Steps a block, instead of the preset's."),
                Continuity.Input("continuity", optional=True, tooltip="MCI and URCR, instead of the preset's."),
            ],
            outputs=[Stream.Output("stream", "stream", tooltip="For the JoyAvatar Stream nodes; holds no frames.")],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
