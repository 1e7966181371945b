"""Motion Condition Injection and cache resetting set by hand, with their effect in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.sampling.mci import MciSettings
from ..joyavatar_core.sampling.urcr import UrcrSettings
from .model import avatar_of
from .notes import note
from .types import SCHEDULES, Continuity, advanced


@dataclass(frozen=True)
class ContinuitySettings:
    """JOYAVATAR_CONTINUITY: MCI and URCR together, because MCI's frames must be among those that URCR keeps."""

    mci: MciSettings
    urcr: UrcrSettings


class JoyAvatarContinuity(io.ComfyNode):
    """MCI and URCR settings: the past frames that a block attends to, and those kept at a reset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarContinuity",
            display_name="JoyAvatar Continuity",
            category=SCHEDULES,
            description="MCI adds noised copies of the newest frames to the next block's context. URCR keeps "
            "positions within the trained range at any length. All counts are latent frames (4 video frames each). "
            "Optional: without it the sampler uses its preset.",
            inputs=[
                io.Combo.Input(
                    "mci_mode",
                    options=["inject", "context", "off"],
                    default="inject",
                    tooltip="'inject': noisy copies of the newest frames are added beside the clean ones. 'context': "
                    "all past frames are cached with noise, at no cost. 'off': no noise is added.",
                ),
                io.Int.Input(
                    "mci_frames",
                    default=3,
                    min=0,
                    max=1000,
                    tooltip="Number of newest latent frames that 'inject' noises; 0 is off.",
                ),
                io.Float.Input(
                    "mci_noise",
                    default=0.25,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of noise in these frames, from 0 (off) to below 1. For models trained with noised "
                    "context.",
                ),
                io.Combo.Input(
                    "urcr_mode",
                    options=["rotate", "prefill", "window", "off"],
                    default="rotate",
                    tooltip="How the newest frames are kept at a reset. 'rotate': their keys are rotated to new "
                    "positions, at no cost. 'prefill': the model processes them again. 'window': no reset, a sliding "
                    "window. 'off': the old name of 'window'.",
                ),
                io.Int.Input(
                    "sinks",
                    default=3,
                    min=0,
                    max=1000000,
                    tooltip="Number of first latent frames that always stay in the cache; a multiple of the "
                    "checkpoint's block.",
                ),
                io.Int.Input(
                    "recent",
                    default=6,
                    min=0,
                    max=1000000,
                    tooltip="Number of newest latent frames kept at a reset; a multiple of the block, at least "
                    "mci_frames.",
                ),
                advanced(
                    io.Combo.Input(
                        "sink_source",
                        options=["portrait", "first"],
                        default="portrait",
                        tooltip="Content of the sinks: the portrait, or the first block as generated.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "window",
                        default=0,
                        min=0,
                        max=1000000,
                        tooltip="Number of latent frames kept with urcr_mode 'window'; 0 is the checkpoint's trained "
                        "length.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "mci_carry",
                        default=1.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        optional=True,
                        tooltip="Share of the noise of a block's last frame in the initial noise of the next block: 1 "
                        "makes seams smallest, 0 is off. Only with MCI on.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Optional: the settings are checked against the checkpoint, and the node shows its exact "
                    "figures.",
                ),
            ],
            outputs=[Continuity.Output("continuity", "continuity", tooltip="For the JoyAvatar Streaming Sampler.")],
            is_output_node=True,  # the page then gets its text also if it is cached
        )

    @classmethod
    def execute(
        cls,
        mci_mode: str,
        mci_frames: int,
        mci_noise: float,
        urcr_mode: str,
        sinks: int,
        recent: int,
        sink_source: str,
        window: int,
        model: object | None = None,
        mci_carry: float = 1.0,
    ) -> io.NodeOutput:
        mci = MciSettings(mci_mode, mci_frames, mci_noise, mci_carry)
        urcr = UrcrSettings(urcr_mode, sinks, recent, sink_source, window or None)
        config = avatar_of(model).config if model is not None else AvatarConfig()
        if model is not None:
            urcr.check(config, mci)
        text = effect_of(mci, urcr, config) + ("" if model is not None else " (as for the public 1.3B; connect model)")
        return io.NodeOutput(ContinuitySettings(mci, urcr), ui=note(text))


def effect_of(mci: MciSettings, urcr: UrcrSettings, config: AvatarConfig) -> str:
    """The effect of the settings for a checkpoint as text: frames kept in the cache, interval of resets, cost."""
    block = config.block_frames
    seconds = 4 / config.fps  # of video a latent frame
    passes = len(config.levels) + 1.0  # of a settled block: its steps and the cache update
    extra = mci.injected / block
    if urcr.mode == "window":
        window = urcr.capacity(config)
        memory = f"keeps {window} latent frames ({window * seconds:.1f} s), never resets"
    else:
        blocks = max(1, (config.trained_positions - urcr.sinks - urcr.recent) // block)
        memory = (
            f"resets every {blocks * block * seconds:.1f} s ({blocks} blocks), keeping {urcr.sinks} + {urcr.recent} of "
            f"{config.trained_positions} latent frames"
        )
        if urcr.mode == "prefill":
            extra += urcr.recent / block / blocks
    motion = "MCI off"
    if mci.injected:
        motion = f"MCI {mci.mode} noises {mci.injected} frames by {mci.noise:g}"
    elif mci.context_noise:
        motion = f"MCI {mci.mode} noises all past frames by {mci.noise:g}"
    motion += ", noise carried over seams" if mci.carried else ""
    return f"{memory}; {motion}; cost about ×{1 + extra / passes:.2f}"
