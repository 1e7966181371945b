"""Pull a stream into a batch of images, or into one latent."""

from __future__ import annotations

from comfy_api.latest import io

from .types import OUTPUT, Stream

ONE_BATCH, BY_RESET, BY_COUNT = "one batch", "by reset", "by count"


class JoyAvatarStreamToFrames(io.ComfyNode):
    """All frames of a stream as images, with their rate and the sound that belongs to them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToFrames",
            display_name="JoyAvatar Stream to Frames",
            category=OUTPUT,
            description="Decodes a stream to images for native image nodes. All frames are held in memory (it says how "
            "much first); for long videos use JoyAvatar Stream to Video.",
            inputs=[
                Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the portrait."),
                io.Combo.Input(
                    "batching",
                    options=[ONE_BATCH, BY_RESET, BY_COUNT],
                    default=ONE_BATCH,
                    tooltip="'one batch': everything together. 'by reset': a new batch at every URCR reset. 'by "
                    "count': batches of `count` frames. Nodes behind several batches run once for each; the pictures "
                    "are the same and seamless in every mode.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=1000000,
                    tooltip="Frames a batch with 'by count'; the last may be shorter.",
                ),
            ],
            outputs=[
                io.Image.Output("images", "images", is_output_list=True, tooltip="The frames, one batch or several."),
                io.Float.Output("fps", "fps", tooltip="Frames a second, for Create Video."),
                io.Audio.Output(
                    "audio",
                    "audio",
                    is_output_list=True,
                    tooltip="The driving voice, trimmed to the frames of each batch.",
                ),
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError


class JoyAvatarStreamToLatent(io.ComfyNode):
    """All latents of a stream as one LATENT for the native VAE Decode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToLatent",
            display_name="JoyAvatar Stream to Latent",
            category=OUTPUT,
            description="Collects a stream's latents in the host's scale. The last block is whole, so decoding them "
            "may give up to a block of frames more than the voice is long; the node says how many to keep.",
            inputs=[Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler.")],
            outputs=[
                io.Latent.Output("latent", "latent", tooltip="[1, 16, frames, h, w], for VAE Decode and latent nodes.")
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
