"""The ComfyUI nodes: thin, one topic per file. Only this folder imports the host."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..joyavatar_core.errors import AvatarError
from .continuity import JoyAvatarContinuity
from .folders import register_folders
from .frames import JoyAvatarStreamToFrames, JoyAvatarStreamToLatent
from .loader import JoyAvatarModelLoader
from .reference import JoyAvatarReference
from .renamed import register_renamed
from .report import JoyAvatarStreamReport
from .sampler import JoyAvatarStreamingSampler
from .samples import copy_samples
from .schedule import JoyAvatarPSBSchedule
from .video import JoyAvatarStreamToVideo
from .voice import JoyAvatarAudioEncode

# The page shows an error's class with its module in front, which for a pack is a path of the machine.
AvatarError.__module__ = "builtins"

NODES: list[type[io.ComfyNode]] = [
    JoyAvatarModelLoader,
    JoyAvatarReference,
    JoyAvatarAudioEncode,
    JoyAvatarPSBSchedule,
    JoyAvatarContinuity,
    JoyAvatarStreamingSampler,
    JoyAvatarStreamToVideo,
    JoyAvatarStreamToFrames,
    JoyAvatarStreamToLatent,
    JoyAvatarStreamReport,
]


class JoyAvatarExtension(ComfyExtension):
    """The extension through which the host gets the pack's nodes."""

    async def on_load(self) -> None:  # hosts before 0.14 do not call it
        await register_renamed()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folders()
        copy_samples()
        return NODES
