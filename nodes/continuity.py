"""Motion Condition Injection and cache resetting set by hand, with their effect in numbers."""

from __future__ import annotations

from comfy_api.latest import io

from .types import SCHEDULES, Continuity, advanced


class JoyAvatarContinuity(io.ComfyNode):
    """What a block sees of the past, and what is kept when the trained positions run out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarContinuity",
            display_name="JoyAvatar Continuity",
            category=SCHEDULES,
            description="MCI shows the newest frames to the next block once more, noised; URCR keeps positions within "
            "the trained range however long the stream is. All counts are latent frames (4 video frames each). "
            "Optional: without it the sampler uses its preset.",
            inputs=[
                io.Combo.Input(
                    "mci_mode",
                    options=["inject", "context", "off"],
                    default="inject",
                    tooltip="'inject': noisy copies of the newest frames stand beside the clean ones. 'context': all "
                    "of the past is remembered noisy, at no cost. 'off': nothing is added.",
                ),
                io.Int.Input(
                    "mci_frames", default=3, min=0, max=1000, tooltip="Newest latent frames shown noised; 0 is off."
                ),
                io.Float.Input(
                    "mci_noise",
                    default=0.25,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of noise in them, 0 (off) to below 1. Meant for models trained with noised context.",
                ),
                io.Combo.Input(
                    "urcr_mode",
                    options=["rotate", "prefill", "off"],
                    default="rotate",
                    tooltip="What happens to the newest frames at a reset. 'rotate': their keys are moved, at no cost. "
                    "'prefill': they are run through the model again. 'off': no reset, a sliding window.",
                ),
                io.Int.Input(
                    "sinks",
                    default=3,
                    min=0,
                    max=1000000,
                    tooltip="First latent frames that are never forgotten; a multiple of the checkpoint's block.",
                ),
                io.Int.Input(
                    "recent",
                    default=6,
                    min=0,
                    max=1000000,
                    tooltip="Newest latent frames kept at a reset; a multiple of the block, at least mci_frames.",
                ),
                advanced(
                    io.Combo.Input(
                        "sink_source",
                        options=["portrait", "first"],
                        default="portrait",
                        tooltip="What the sinks hold: the portrait itself, or the first block as it was generated.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "window",
                        default=0,
                        min=0,
                        max=1000000,
                        tooltip="Latent frames remembered with urcr_mode 'off'; 0 is the checkpoint's trained length.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only to check the settings against the checkpoint and show its exact numbers.",
                ),
            ],
            outputs=[Continuity.Output("continuity", "continuity", tooltip="For the JoyAvatar Streaming Sampler.")],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        raise NotImplementedError
