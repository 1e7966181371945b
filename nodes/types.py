"""The pack's own socket types, and a function that marks an input as advanced."""

from __future__ import annotations

from comfy_api.latest import io

Voice = io.Custom("JOYAVATAR_AUDIO")
Psb = io.Custom("JOYAVATAR_PSB")
Continuity = io.Custom("JOYAVATAR_CONTINUITY")
Stream = io.Custom("JOYAVATAR_STREAM")

PORTRAIT = "joyavatar_portrait"  # in a reference LATENT: the portrait's picture [3, H, W] in -1 ... 1

CATEGORY = "JoyAvatar"
SCHEDULES = "JoyAvatar/schedules"
OUTPUT = "JoyAvatar/output"


def advanced(entry: io.Input) -> io.Input:
    """The same input, marked as advanced for hosts that support it."""
    entry.extra_dict["advanced"] = True  # the hosts tried take no `advanced` argument, and all keep this dictionary
    return entry
