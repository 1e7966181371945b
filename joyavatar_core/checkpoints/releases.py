"""Public releases whose tensors have the same names and shapes as others': which one a file is, its user says.

Steps, blocks and windows are those of each release's published configuration.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import EXACT_LEVELS, AvatarConfig
from ..errors import AvatarError
from .families import AVATARFORCING, Family

SIZE = {"width": 832, "height": 480}
# One latent frame a block. The first of them goes through all four levels, the others through one or two.
FRAMEWISE = {**SIZE, "block_frames": 1}
TWO_STEPS = {**FRAMEWISE, "levels": EXACT_LEVELS[::2], "preset": {"psb": {"steps": [4, 2], "mode": "dense"}}}
ONE_STEP = {**FRAMEWISE, "levels": EXACT_LEVELS[:1], "preset": {"psb": {"steps": [4, 1], "mode": "dense"}}}
APACHE = "Apache-2.0"

AVATARS = {
    "livetalk": Family("LiveTalk-1.3B", "its licence file says CC BY-NC-SA 4.0, its readme Apache-2.0"),
    "omniavatar": Family("OmniAvatar", APACHE),
    "avatarforcing": AVATARFORCING,
}
TEXT_TO_VIDEO = {
    "self-forcing": Family("Self-Forcing", APACHE, SIZE),
    "causal-forcing": Family("Causal-Forcing, chunk-wise", APACHE, SIZE),
    "causal-forcing-framewise": Family("Causal-Forcing, frame-wise", APACHE, FRAMEWISE),
    "causal-forcing-2step": Family("Causal-Forcing++, frame-wise, 2 steps", APACHE, TWO_STEPS),
    "causal-forcing-1step": Family("Causal-Forcing++, frame-wise, 1 step", APACHE, ONE_STEP),
    "one-forcing": Family("One-Forcing, frame-wise", APACHE, ONE_STEP),
    # Positions within its window of 12 frames, the first 3 and the newest 9 with the block: use_infinite_attention.
    "longlive": Family(
        "LongLive-1.3B",
        "Apache-2.0 since November 2025, CC BY-NC-SA 4.0 before; two of its code files are still marked so",
        {**SIZE, "trained_positions": 12, "preset": {"urcr": {"recent": 6}}},
    ),
}
RELEASES: Mapping[str, Family] = {**AVATARS, **TEXT_TO_VIDEO}


def release_named(name: str) -> Family:
    """The release of that name. Raises AvatarError for a name that is none."""
    if name not in RELEASES:
        raise AvatarError(f"The release '{name}' is not known; choose one of {', '.join(RELEASES)}.", "release")
    return RELEASES[name]


def possible_releases(config: AvatarConfig) -> tuple[str, ...]:
    """The releases that a file of these dimensions may be."""
    if config.has_reference:
        return tuple(AVATARS) if config.audio_dim and config.audio_features == "wav2vec2" else ()
    return () if config.audio_dim else tuple(TEXT_TO_VIDEO)


def check_release(name: str, config: AvatarConfig, label: str) -> None:
    """Raise AvatarError where a file cannot be the release that it is said to be."""
    possible = possible_releases(config)
    if name in possible:
        return
    said, others = RELEASES[name].name, ", ".join(possible)
    if not possible:
        raise AvatarError(f"'{label}' is no public release, and not {said}; leave the release out.", "release")
    if config.has_reference:
        raise AvatarError(f"'{label}' takes a portrait, so it is not {said}; choose one of {others}.", "release")
    raise AvatarError(f"'{label}' takes no portrait, so it is not {said}; choose one of {others}.", "release")
