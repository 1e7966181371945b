"""Progressive Step Bootstrapping set by hand, with its curve drawn."""

from __future__ import annotations

from comfy_api.latest import io
from PIL import Image

from ..joyavatar_core.config import PUBLIC_LEVELS
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.sampling.psb import PsbSettings
from .model import avatar_of
from .notes import drawn
from .plots import chart
from .types import SCHEDULES, Psb, advanced

MOST_BLOCKS = 400  # that are drawn


class JoyAvatarPSBSchedule(io.ComfyNode):
    """How many denoising steps each block gets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarPSBSchedule",
            display_name="JoyAvatar PSB Schedule",
            category=SCHEDULES,
            description="Progressive Step Bootstrapping: the first blocks get more denoising steps than later blocks. "
            "Steps of block b: base + (first - base) * (1 - b / blocks) ^ curve, rounded. Optional: without it the "
            "sampler uses its preset.",
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
                    "blocks",
                    default=4,
                    min=0,
                    max=1000000,
                    tooltip="Number of blocks until base_steps is reached; 0 is off.",
                ),
                io.Float.Input(
                    "curve",
                    default=1.0,
                    min=0.05,
                    max=20.0,
                    step=0.05,
                    tooltip="Shape of the ramp: 1 is linear, above 1 falls early, below 1 falls late.",
                ),
                advanced(
                    io.Combo.Input(
                        "mode",
                        options=["restart", "dense"],
                        default="restart",
                        tooltip="Noise levels of the additional steps. 'restart' repeats the last trained levels. "
                        "'dense' spreads new levels over the range, for models trained on all levels.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "steps",
                        default="",
                        tooltip="An explicit list of steps per block, such as 8, 6, 5, 4. It replaces the settings "
                        "above. Its last entry is used for all later blocks. Empty: the curve is used.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Optional: the schedule is checked against the checkpoint's trained levels and plotted "
                    "with them.",
                ),
            ],
            outputs=[Psb.Output("psb", "psb", tooltip="For the JoyAvatar Streaming Sampler.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # the page then gets its text and picture also if it is cached
        )

    @classmethod
    def execute(
        cls,
        first_steps: int,
        base_steps: int,
        blocks: int,
        curve: float,
        mode: str,
        steps: str,
        model: object | None = None,
    ) -> io.NodeOutput:
        settings = PsbSettings(
            first=first_steps, base=base_steps or None, blocks=blocks, curve=curve, mode=mode, steps=step_list(steps)
        )
        trained = None
        if model is not None:
            config = avatar_of(model).config
            settings.check(config)
            trained = len(config.levels)
        picture, text = curve_of(settings, trained)
        return io.NodeOutput(settings, ui=drawn(picture, cls, text))


def step_list(text: str) -> tuple[int, ...]:
    """Steps from "8, 6 5" (commas, spaces or both). Raises AvatarError for what is no whole number."""
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise AvatarError(f"PSB steps is '{text}'; give whole numbers such as 8, 6, 5, 4, or leave it empty.")
    return tuple(int(word) for word in words)


def curve_of(settings: PsbSettings, trained: int | None) -> tuple[Image.Image, str]:
    """The schedule drawn over its first blocks and in words; `trained` None is drawn as the usual number of levels."""
    levels = trained or len(PUBLIC_LEVELS)
    ramp = len(settings.steps) or settings.blocks
    shown = min(max(12, ramp + 4), MOST_BLOCKS)
    steps = [settings.steps_for(block, levels) for block in range(shown)]
    base = settings.steps_for(10**6, levels)
    guess = "" if trained or settings.steps or settings.base else f" (with {levels} trained levels; connect model)"
    listed = " ".join(map(str, steps[: min(ramp + 1, 12)]))
    text = f"steps {listed} …, then {base} a block{guess}"
    return chart(f"PSB: steps a block{guess}", steps, bars=True), text
