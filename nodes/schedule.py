"""Progressive Step Bootstrapping set by hand, with its curve drawn."""

from __future__ import annotations

from comfy_api.latest import io

from .types import SCHEDULES, Psb, advanced


class JoyAvatarPSBSchedule(io.ComfyNode):
    """How many denoising steps each block gets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarPSBSchedule",
            display_name="JoyAvatar PSB Schedule",
            category=SCHEDULES,
            description="Progressive Step Bootstrapping: more denoising steps for the first blocks, fewer once the "
            "stream has settled. Steps of block b: base + (first - base) * (1 - b / blocks) ^ curve, rounded. "
            "Optional: without it the sampler uses its preset.",
            inputs=[
                io.Int.Input("first_steps", default=8, min=1, max=1000, tooltip="Denoising steps of the first block."),
                io.Int.Input(
                    "base_steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Steps of every block after the ramp; 0 is the number of levels the checkpoint was "
                    "trained on.",
                ),
                io.Int.Input(
                    "blocks", default=4, min=0, max=1000000, tooltip="Blocks until the base is reached; 0 is off."
                ),
                io.Float.Input(
                    "curve",
                    default=1.0,
                    min=0.05,
                    max=20.0,
                    step=0.05,
                    tooltip="1 falls in a straight line, more falls early, less falls late.",
                ),
                advanced(
                    io.Combo.Input(
                        "mode",
                        options=["restart", "dense"],
                        default="restart",
                        tooltip="Which noise levels extra steps use. 'restart' repeats the last trained ones; 'dense' "
                        "spreads new ones, for models trained on all levels.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "steps",
                        default="",
                        tooltip="An explicit list such as 8, 6, 5, 4 that replaces everything above; its last entry "
                        "holds for all later blocks. Empty: the curve is used.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only to check the schedule against the checkpoint's trained levels and draw it exactly.",
                ),
            ],
            outputs=[Psb.Output("psb", "psb", tooltip="For the JoyAvatar Streaming Sampler.")],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
