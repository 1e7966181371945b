"""A portrait as the reference latent of a stream."""

from __future__ import annotations

from comfy_api.latest import io

from .types import CATEGORY


class JoyAvatarReference(io.ComfyNode):
    """Cover-resize, centre-crop and encode a portrait for a checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarReference",
            display_name="JoyAvatar Reference",
            category=CATEGORY,
            description="Fits a portrait to the checkpoint's picture size and encodes it. The stream's first frame is "
            "this picture.",
            inputs=[
                io.Image.Input("image", tooltip="The portrait; of a batch the first picture is taken."),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE the checkpoint was trained with: Wan 2.1's for public models, the embedded one "
                    "(in the list of Load VAE) for the embedded avatar.",
                ),
                io.Model.Input("model", tooltip="From Load JoyAvatar Model; gives the size and the latent scale."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16; 0 is the checkpoint's own width. Larger pictures than the "
                    "checkpoint was trained on are refused.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16; 0 is the checkpoint's own height.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "reference", "reference", tooltip="The portrait's latent, in the host's scale, one frame."
                ),
                io.Image.Output("portrait", "portrait", tooltip="The resized and cropped portrait that was encoded."),
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
