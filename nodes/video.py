"""Pull a stream into a video file that grows block by block."""

from __future__ import annotations

from comfy_api.latest import io

from .types import OUTPUT, Stream


class JoyAvatarStreamToVideo(io.ComfyNode):
    """Sample, decode and write a stream, one block in memory at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToVideo",
            display_name="JoyAvatar Stream to Video",
            category=OUTPUT,
            description="Makes the talking video and writes it into the output folder while it grows, with its sound. "
            "Memory holds one block, however long the voice is. An interrupted run leaves a playable .part.mp4.",
            inputs=[
                Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the portrait."),
                io.String.Input(
                    "filename_prefix",
                    default="JoyAvatar/talk",
                    tooltip="Name of the file below the output folder; may hold %date:yyyy-MM-dd% and the like.",
                ),
                io.Int.Input(
                    "quality",
                    default=18,
                    min=1,
                    max=51,
                    tooltip="H.264 constant rate factor: 1 is best and largest, 18 looks lossless, 51 is smallest.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound of the video instead of the driving voice, for example the same voice with music; "
                    "trimmed to the picture.",
                ),
            ],
            outputs=[io.Video.Output("video", "video", tooltip="The finished file, for native video nodes.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
