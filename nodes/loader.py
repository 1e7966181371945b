"""Load an avatar checkpoint as a MODEL."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy_api.latest import io

from ..joyavatar_core.checkpoints import open_checkpoint
from ..joyavatar_core.checkpoints.releases import RELEASES
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.pipeline.avatar import EMBEDDED, open_embedded
from .folders import checkpoint_names, checkpoint_path
from .model import FP8, avatar_patcher
from .types import CATEGORY, advanced

NO_BASE = "none"
AUTO = "auto"
WEIGHT_DTYPES = {"default": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8": FP8}


class JoyAvatarModelLoader(io.ComfyNode):
    """A checkpoint, or the embedded avatar, as a MODEL that native LoRA nodes and the host's offloading work on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = checkpoint_names()
        return io.Schema(
            node_id="JoyAvatarModelLoader",
            display_name="Load JoyAvatar Model",
            category=CATEGORY,
            description="Loads a talking-avatar transformer. 'embedded' is included in the pack and needs no "
            "download. Put LiveTalk, OmniAvatar and other Wan2.1-style files in models/diffusion_models or "
            "models/joyavatar.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=files,
                    default=EMBEDDED,
                    tooltip="'embedded' is the avatar in this pack. Files are read from models/diffusion_models and "
                    "models/joyavatar. The type of a file is determined from its tensors, not from its name.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="Number format of the weights in memory. 'default': the file's own format, or float32 "
                        "if ComfyUI computes on the CPU. fp8 and scaled fp8 files stay fp8, GGUF files become bf16. "
                        "'fp8' halves the memory of any file and rounds its linear layers by about 3 %; the "
                        "computation is in bf16 or what ComfyUI chooses.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "base_model",
                        options=[NO_BASE, *files[1:]],
                        default=NO_BASE,
                        tooltip="The base model of a release that is a LoRA with an audio branch (OmniAvatar-1.3B "
                        "needs Wan2.1-T2V-1.3B). Other files need none. Keep the release's config.json beside its "
                        "file.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "release",
                        options=[AUTO, *RELEASES],
                        default=AUTO,
                        optional=True,
                        tooltip="The public release of the file, if several releases have the same tensors: a merged "
                        "copy of AvatarForcing, or a text-to-video student with its own blocks and steps. 'auto': "
                        "determined from the tensors.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    "model",
                    tooltip="For the JoyAvatar nodes and for native LoRA loaders. KSampler does not support it: the "
                    "JoyAvatar Streaming Sampler generates the blocks.",
                )
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str, base_model: str, release: str = AUTO) -> io.NodeOutput:
        base = None if base_model == NO_BASE else existing(base_model)
        said = None if release == AUTO else release
        if model_name != EMBEDDED:
            checkpoint = open_checkpoint(existing(model_name), base=base, release=said)
        elif said is None:
            checkpoint = open_embedded()
        else:
            raise AvatarError(f"The embedded avatar is no public release, and not '{release}'; choose auto.")
        return io.NodeOutput(avatar_patcher(checkpoint, model_name, WEIGHT_DTYPES[weight_dtype]))

    @classmethod
    def fingerprint_inputs(
        cls, model_name: str, weight_dtype: str, base_model: str, release: str = AUTO
    ) -> list[object]:
        """A file that was replaced under the same name is loaded again, and so is one whose config.json has changed.

        The names are None where they come from another node.
        """
        paths = [checkpoint_path(name) for name in (model_name, base_model) if name]
        files = [file for path in paths if path for file in (path, path.with_name("config.json")) if file.exists()]
        return [model_name, base_model, weight_dtype, release, *((str(f), f.stat().st_mtime_ns) for f in files)]


def existing(name: str) -> Path:
    """The file named `name`. Raises AvatarError if it does not exist."""
    path = checkpoint_path(name)
    if path is None:
        raise AvatarError(
            f"The model '{name}' is not in models/diffusion_models or models/joyavatar; put it there, or choose "
            "'embedded'."
        )
    return path
