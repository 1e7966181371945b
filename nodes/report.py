"""What a stream did, block by block, as a plot and as text."""

from __future__ import annotations

from comfy_api.latest import io

from .types import OUTPUT, Stream


class JoyAvatarStreamReport(io.ComfyNode):
    """Steps, resets, positions and seconds of every block of a run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamReport",
            display_name="JoyAvatar Stream Report",
            category=OUTPUT,
            description="Plots steps, positions, resets and seconds of every block. Wire the VIDEO of JoyAvatar Stream "
            "to Video to see that run; a stream that was not pulled before is sampled for the report.",
            inputs=[
                io.MultiType.Input(
                    "source",
                    types=[Stream, io.Video],
                    tooltip="The VIDEO of JoyAvatar Stream to Video, or a stream.",
                ),
            ],
            outputs=[
                io.Image.Output("plot", "plot", tooltip="The plot, over the whole run."),
                io.String.Output("text", "text", tooltip="The totals and every reset, in words."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
