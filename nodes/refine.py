"""The portrait refiner in the host: the Stream nodes' input for it, and its weights as the host loads them."""

from __future__ import annotations

from functools import lru_cache

import comfy.model_management as mm
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.pipeline.avatar import EMBEDDED
from ..joyavatar_core.pipeline.embedded import EMBEDDED_REFINER, load_embedded_refiner
from ..joyavatar_core.refiner import (
    MOST_FPS,
    TIMES,
    USUAL_MOTION,
    FaceMotion,
    PortraitRefiner,
    chosen_rate,
    refined_size,
    refining_bytes,
)
from .model import HostAvatar
from .patcher import host_patcher
from .stream import HostStream
from .types import advanced
from .vae import HostDecoder

AUTO, OFF = "auto", "off"


def refine_inputs() -> list[io.Input]:
    """How the Stream nodes refine frames: inputs behind their own."""
    size = io.Combo.Input(
        "refine",
        options=[AUTO, OFF, *TIMES],
        default=AUTO,
        optional=True,
        tooltip="Adds the portrait's detail to the frames, moved to the position of the face, at this multiple of the "
        "stream's size. 'auto': 512 pixels wide (4x of 128) for the embedded avatar with a portrait from JoyAvatar "
        "Reference, else off. '8x' gives 1024 pixels from 128, for portraits with that many pixels; drawing then takes "
        "more than twice as long.",
    )
    blinks = io.Float.Input(
        "blinks",
        default=USUAL_MOTION.blinks,
        min=0,
        max=60,
        step=1,
        optional=True,
        tooltip="Mean number of blinks in a minute, for refined faces. 0: none.",
    )
    articulation = io.Float.Input(
        "articulation",
        default=USUAL_MOTION.articulation,
        min=0,
        max=3,
        step=0.1,
        optional=True,
        tooltip="How far the lips of refined faces move. 1: as the voice says; less is calmer, more is livelier.",
    )
    return [size, advanced(blinks), advanced(articulation)]


def later_inputs() -> list[io.Input]:
    """Inputs that the Stream nodes got later: they are behind all others."""
    head_motion = io.Float.Input(
        "head_motion",
        default=USUAL_MOTION.head_motion,
        min=0,
        max=3,
        step=0.1,
        optional=True,
        tooltip="How far refined heads turn, nod and raise their brows with the voice, on top of the stream's "
        "movements. 0: not at all.",
    )
    fps = io.Int.Input(
        "fps",
        default=0,
        min=0,
        max=MOST_FPS,
        optional=True,
        tooltip="Frames per second of refined faces, such as 25, 30 or 32. Each frame is drawn for its own moment, so "
        "movements look smoother; the time grows with the frames. 0: the model's own, 16 for the embedded avatar.",
    )
    return [advanced(head_motion), advanced(fps)]


def has_refiner(avatar: HostAvatar) -> bool:
    """Whether a refiner was trained for this avatar. Only the embedded avatar has one."""
    return avatar.name == EMBEDDED and EMBEDDED_REFINER.exists()


class Refine:
    """The refinement of a stream by a Stream node; it is determined before sampling.

    pixel_size: (width, height) of the node's frames. rate: their frame rate. patchers: what the host must load besides.
    Raises AvatarError if refinement, or a frame rate that needs it, is requested and not possible.
    """

    def __init__(self, stream: HostStream, setting: str, motion: FaceMotion = USUAL_MOTION) -> None:
        self.stream, self.motion = stream, motion
        can = has_refiner(stream.avatar) and stream.recipe.portrait is not None
        if setting not in (AUTO, OFF) and not can:
            raise AvatarError(
                f"refine is '{setting}', and only the embedded avatar with a portrait from JoyAvatar Reference has a "
                "refiner; choose auto or off."
            )
        size = refined_size(("on" if can else OFF) if setting == AUTO else setting, stream.pixel_size)
        self.pixel_size = size or stream.pixel_size
        self.rate = chosen_rate(stream.fps, motion.fps, refined=size is not None)
        self.patchers = () if size is None else (_patcher(),)

    @property
    def working_bytes(self) -> int:
        """Bytes that refining a block takes on the host's device, besides the refiner."""
        if not self.patchers:
            return 0
        return refining_bytes(self.pixel_size, self.stream.avatar.config.block_frames, self.rate)

    def begin(self, decoder: HostDecoder) -> PortraitRefiner | None:
        """The refiner, after the models are loaded; None if the frames stay as decoded."""
        if not self.patchers:
            return None
        return PortraitRefiner.of(self.patchers[0].model, self.stream.recipe, decoder, self.pixel_size, self.motion)


@lru_cache(1)
def _patcher() -> ModelPatcher:
    return host_patcher(load_embedded_refiner(), mm.vae_device(), mm.vae_offload_device())
