"""A portrait as the reference latent of a stream."""

from __future__ import annotations

import comfy.model_management as mm
from comfy_api.latest import io
from torch import Tensor

from ..joyavatar_core.refiner import MOST
from ..joyavatar_core.video.portrait import check_trained_size, load_portrait
from .model import avatar_of
from .refine import has_refiner
from .types import CATEGORY, PORTRAIT
from .vae import load_together, streaming_vae, to_host


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
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE the checkpoint was trained with: Wan 2.1's for public models. The embedded avatar "
                    "needs none wired: it has its own.",
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
    def execute(cls, image: Tensor, model: object, width: int, height: int, vae: object | None = None) -> io.NodeOutput:
        avatar = avatar_of(model)
        config = avatar.config
        width, height = width or config.width, height or config.height
        check_trained_size(width, height, config)
        portrait = load_portrait(image, width, height)  # [3, H, W] in -1 ... 1
        decoder = streaming_vae(vae, avatar)
        load_together([decoder.patcher], decoder.working_bytes(width, height))
        latent = to_host(decoder.encode(portrait), config)
        shown = portrait.permute(1, 2, 0)[None].add(1).div(2)
        reference = {"samples": latent.to(mm.intermediate_device())}
        if has_refiner(avatar):  # the picture travels with the latent
            reference[PORTRAIT] = load_portrait(image, MOST * width, MOST * height)
        return io.NodeOutput(reference, shown)
