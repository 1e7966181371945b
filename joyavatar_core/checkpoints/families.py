"""Public releases: what their files do not say about how they were trained, and under which terms they come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .lora import LoraScale

# AvatarForcing's levels: entries 0, 200, 600 and 800 of a float32 schedule of 1000 that is shifted by 5. A timestep is
# 1000 sigma in float32, which differs from the exact product in its last digits.
ROLLING_LEVELS = (
    (1000.0, 1.0), (952.3810424804688, 4 / 4.2), (769.2307739257812, 2 / 2.6), (555.5556030273438, 1 / 1.8),
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """name: of the release. terms: as its licence file and its readme state them. behaviour: fields of AvatarConfig
    that its tensors cannot tell. lora: the scale of its adapters, where no file says it."""

    name: str
    terms: str
    behaviour: Mapping[str, object] = field(default_factory=dict)
    lora: LoraScale = field(default_factory=LoraScale)


AVATARFORCING = Family(
    "AvatarForcing One-Step",
    "its licence file (RollingForcing's text) allows academic use only, its readme says Apache-2.0",
    {"sampler": "rolling", "fps": 25, "block_frames": 4, "levels": ROLLING_LEVELS, "trained_positions": 1024,
     "audio_offset": -1, "width": 832, "height": 480},
    LoraScale(alpha=64.0, rank=128),  # of its configuration; the file has no alpha
)  # fmt: skip
WAN = Family("Wan2.1-T2V-1.3B or a student of it", "Wan2.1 and most students: Apache-2.0")
AVATAR = Family(
    "avatar 1.3B (LiveTalk, OmniAvatar or AvatarForcing merged)",
    "LiveTalk: its licence file says CC BY-NC-SA 4.0, its readme Apache-2.0; OmniAvatar: Apache-2.0; AvatarForcing: "
    "its licence file allows academic use only, its readme says Apache-2.0",
)
OMNIAVATAR_14B = Family("avatar 14B (OmniAvatar merged)", "Apache-2.0")
UMT5 = Family("umt5-xxl encoder (Wan2.1)", "Apache-2.0")
VAE = Family("Wan2.1 VAE", "Apache-2.0")

# By the fingerprint of their keys; the transformers' is that of the canonical names.
KNOWN = {
    "9269f8db9040a9d860eaca435be61814": WAN,
    "2bf9513c7a3e908015f11a800fc9b820": AVATAR,
    "883a90b12576b9b8693a08cf690998dd": OMNIAVATAR_14B,
    "9c8818c2cbea55eca56c7b447df170da": UMT5,
    "ccc42284ea13e1ad04693284c7a09be6": VAE,
}


def is_avatarforcing(own_names: Collection[str], changed: Collection[str], full: Collection[str]) -> bool:
    """Whether a file is laid out as AvatarForcing's: an avatar beside its own adapters, not merged, on the ten linear
    layers of every block.

    own_names: of the file's tensors. changed: canonical names of the weights that have an adapter. full: of the rest.
    """
    linears = {
        name for name in full
        if name.startswith("blocks.") and name.endswith(".weight") and ".norm" not in name
    }  # fmt: skip
    return (
        bool(linears)
        and set(changed) == linears
        and "audio_proj.proj.weight" in full
        and any(".base_layer." in name for name in own_names)
        and any(".lora_A.default." in name for name in own_names)
    )
