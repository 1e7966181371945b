"""A portrait as the reference latent of a stream."""

from __future__ import annotations

import comfy.model_management as mm
from comfy_api.latest import io, ui
from torch import Tensor

from ..joyavatar_core.framing.crop import parse_crop
from ..joyavatar_core.framing.portrait_framing import cut_out, frame_for
from ..joyavatar_core.refiner import USUAL_SCALE, carried_size
from .model import avatar_of
from .refine import has_refiner
from .types import CATEGORY, PORTRAIT
from .vae import encoding_vae, load_together, to_host


class JoyAvatarReference(io.ComfyNode):
    """Crop, resize and encode a portrait for a checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarReference",
            display_name="JoyAvatar Reference",
            category=CATEGORY,
            description="Crops and resizes a portrait to the checkpoint's picture size and encodes it. The stream's "
            "first frame is this picture.",
            inputs=[
                io.Image.Input("image", tooltip="The portrait. The first picture of a batch is used."),
                io.Model.Input(
                    "model", tooltip="From Load JoyAvatar Model. Sets the default size and the latent scale."
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16; 0 is the checkpoint's own width. Pictures larger than the "
                    "checkpoint was trained on are refused. Checkpoints of Wan2.1's size accept them with a warning.",
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
                    tooltip="The VAE the checkpoint was trained with: Wan 2.1's for public models. The embedded "
                    "avatar has its own VAE and needs none.",
                ),
                io.String.Input(
                    "crop",
                    default="face",
                    optional=True,
                    tooltip="The visible part of the portrait: face (framed as in training; for public checkpoints "
                    "the face is only kept in the picture), centre, or X,Y,W,H in the portrait's pixels.",
                ),
                io.String.Input(
                    "background",
                    default="white",
                    optional=True,
                    tooltip="The colour behind a cut-out portrait: a name or #RRGGBB.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The transparent area of the portrait, as Load Image gives it. The background colour is "
                    "visible there.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "reference", "reference", tooltip="The portrait's latent, one frame, as ComfyUI's VAE nodes use it."
                ),
                io.Image.Output("portrait", "portrait", tooltip="The resized and cropped portrait that was encoded."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        model: object,
        width: int,
        height: int,
        vae: object | None = None,
        crop: str = "face",
        background: str = "white",
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        avatar = avatar_of(model)
        config = avatar.config
        pixel_size = width, height = width or config.width, height or config.height
        image = image[:1].clamp(0, 1)  # some resizing nodes overshoot
        source = image if mask is None else cut_out(image, mask)
        detail = USUAL_SCALE if has_refiner(avatar) else 1
        framed = frame_for(config, source, pixel_size, parse_crop(crop.strip()), background.strip(), detail)
        portrait = framed.pixels  # [3, H, W] in -1 ... 1
        encoder = encoding_vae(vae, avatar)
        load_together([encoder.patcher], encoder.working_bytes(pixel_size))
        latent = to_host(encoder.encode(portrait), config)
        shown = portrait.permute(1, 2, 0)[None].add(1).div(2)
        reference = {"samples": latent.to(mm.intermediate_device())}
        if has_refiner(avatar):  # the picture travels with the latent
            reference[PORTRAIT] = framed.at(*carried_size(framed))
        return io.NodeOutput(reference, shown, ui=ui.PreviewImage(shown, cls=cls))
