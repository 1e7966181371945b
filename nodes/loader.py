"""Load an avatar checkpoint as a MODEL."""

from __future__ import annotations

from comfy_api.latest import io

from ..joyavatar_core.avatar import EMBEDDED
from .folders import checkpoint_names
from .types import CATEGORY, advanced

NO_BASE = "none"
WEIGHT_DTYPES = ("default", "bf16", "fp16", "fp32")


class JoyAvatarModelLoader(io.ComfyNode):
    """A checkpoint, or the embedded avatar, as a MODEL that native LoRA nodes and the host's offloading work on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = checkpoint_names()
        return io.Schema(
            node_id="JoyAvatarModelLoader",
            display_name="Load JoyAvatar Model",
            category=CATEGORY,
            description="Loads a talking-avatar transformer. 'embedded' comes with the pack and needs no download; "
            "LiveTalk, OmniAvatar and other Wan2.1-style files go to models/diffusion_models or models/joyavatar.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=files,
                    default=EMBEDDED,
                    tooltip="'embedded' is the avatar in this pack. Files are read from models/diffusion_models and "
                    "models/joyavatar; what a file is, is read from its tensors, never from its name.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="Number format the weights are kept in. 'default': the file's own, or float32 where "
                        "the host computes on the CPU. fp8 and GGUF files are not supported.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "base_model",
                        options=[NO_BASE, *files[1:]],
                        default=NO_BASE,
                        tooltip="Only for releases that are a LoRA with an audio branch (OmniAvatar-1.3B): the "
                        "model they were trained on (Wan2.1-T2V-1.3B). Keep the release's config.json beside its file.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    "model",
                    tooltip="For the JoyAvatar nodes and for native LoRA loaders. It has no KSampler: blocks are made "
                    "by the JoyAvatar Streaming Sampler.",
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
