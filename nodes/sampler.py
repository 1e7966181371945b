"""All inputs of a stream, checked and combined. Nothing is generated here."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace

from comfy_api.latest import io
from torch import Tensor

from ..joyavatar_core.audio import Clock
from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.geometry import to_pixel_size
from ..joyavatar_core.sampling.presets import PRESETS
from ..joyavatar_core.sampling.presets import preset as preset_settings
from ..joyavatar_core.sampling.psb import PsbSettings
from ..joyavatar_core.sampling.stream import AvatarStream
from ..joyavatar_core.video.portrait import check_trained_size
from .compiled import passes_of
from .continuity import ContinuitySettings
from .model import avatar_of
from .notes import note
from .patcher import remarks
from .stream import HostStream, HostVoice
from .types import CATEGORY, PORTRAIT, Continuity, Psb, Stream, Voice
from .vae import from_host

log = logging.getLogger(__name__)


class JoyAvatarStreamingSampler(io.ComfyNode):
    """The recipe of a talking stream. The Stream nodes after it request its blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamingSampler",
            display_name="JoyAvatar Streaming Sampler",
            category=CATEGORY,
            description="Combines model, portrait and voice into a stream of latent blocks, and checks that they fit "
            "together. Sampling is lazy: a Stream node requests block after block. Each Stream node samples the "
            "stream again.",
            inputs=[
                io.Model.Input("model", tooltip="From Load JoyAvatar Model, with or without LoRAs."),
                io.Latent.Input(
                    "reference",
                    tooltip="From JoyAvatar Reference: one latent frame. Checkpoints without a portrait input use "
                    "only its size.",
                ),
                Voice.Input("voice", tooltip="From JoyAvatar Audio Encode. The video is as long as this voice."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="checkpoint",
                    tooltip="PSB, MCI and URCR settings if psb or continuity is not connected. 'checkpoint': "
                    "recommended by the checkpoint. 'joyavatar': all three on. 'plain': none of them, as for the "
                    "public student models. 'rolling': AvatarForcing's window, which is also what its checkpoint "
                    "recommends. 'realtime': as 'checkpoint', with at most four denoising steps a block; connect a "
                    "tiny decoder (taew2_1) to the Stream node with it.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed and inputs on the same machine give the same video.",
                ),
                io.Conditioning.Input(
                    "prompt",
                    optional=True,
                    tooltip="From CLIP Text Encode with the text encoder the checkpoint was trained with (umt5-xxl "
                    "for Wan 2.1). If not connected: an empty prompt.",
                ),
                Psb.Input("psb", optional=True, tooltip="Steps per block; replaces the preset's PSB settings."),
                Continuity.Input("continuity", optional=True, tooltip="Replaces the preset's MCI and URCR settings."),
            ],
            outputs=[
                Stream.Output("stream", "stream", tooltip="For the JoyAvatar Stream nodes. It contains no frames.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        reference: dict,
        voice: HostVoice,
        preset: str,
        seed: int,
        prompt: list | None = None,
        psb: PsbSettings | None = None,
        continuity: ContinuitySettings | None = None,
    ) -> io.NodeOutput:
        avatar = avatar_of(model)
        config = avatar.config
        chosen = preset_settings(preset, config)
        if psb is not None:
            chosen = replace(chosen, psb=psb)
        if continuity is not None:
            chosen = replace(chosen, mci=continuity.mci, urcr=continuity.urcr)
        latent, larger = reference_of(reference, config)
        recipe = AvatarStream(
            passes_of(model),
            from_host(latent, config) if config.has_reference else None,
            voice.features,
            text=prompt[0][0][:1] if prompt else None,
            psb=chosen.psb,
            mci=chosen.mci,
            urcr=chosen.urcr,
            seed=seed,
            video_frames=Clock(voice.source.sample_rate, config.fps).num_frames(voice.source.num_samples),
            latent_size=(latent.shape[-1], latent.shape[-2]),
            dtype=avatar.compute_dtype,
            device=model.load_device,
            portrait=reference.get(PORTRAIT),
        )
        settings = {"preset": preset, "seed": seed, **asdict(chosen)}
        said = [*remarks(model), *filter(None, [larger])]
        for remark in said:
            log.warning("%s", remark)
        return io.NodeOutput(HostStream(recipe, model, voice, settings), ui=note("\n".join(said)))


def reference_of(latent: dict, config: AvatarConfig) -> tuple[Tensor, str | None]:
    """The first item of a LATENT's batch, in the host's scale, and a remark on its size, if any.

    Raises AvatarError for latents of another kind, and for sizes that the checkpoint does not support.
    """
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[1:3] != (config.out_channels, 1):
        raise AvatarError(
            f"The reference latent is {list(samples.shape)}, expected a Wan2.1 latent [1, {config.out_channels}, 1, h, "
            "w]; connect JoyAvatar Reference here."
        )
    return samples[:1], check_trained_size(*to_pixel_size((samples.shape[-1], samples.shape[-2])), config)
