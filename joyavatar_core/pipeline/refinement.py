"""Which avatars have a portrait refiner, and what can be wrong with a refinement before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AvatarError
from ..geometry import Size
from ..refiner import refined_size
from .avatar_options import EMBEDDED, AvatarOptions
from .embedded import EMBEDDED_REFINER

if TYPE_CHECKING:
    from .avatar import Avatar


def default_refine(avatar: Avatar, live: bool = False) -> str:
    """The refinement if none is chosen: off without a refiner, 2x for a live stream, otherwise on."""
    return "off" if avatar.refiner is None else "2x" if live else "on"


def check_refine(options: AvatarOptions, setting: str | int, frame: Size) -> None:
    """Raise AvatarError where `Avatar.refine` would, without the avatar. frame: (width, height) of the stream."""
    if refined_size(setting, frame) is not None and not has_refiner(options):
        raise no_refiner(options.name)


def no_refiner(name: str) -> AvatarError:
    """What is wrong with a refinement by an avatar that has no refiner."""
    return AvatarError(f"'{name}' has no portrait refiner, only the embedded avatar has; refine: off.")


def has_refiner(options: AvatarOptions) -> bool:
    """Whether the avatar of these files has a portrait refiner: the embedded one with its own VAE has."""
    return options.weights == options.vae == EMBEDDED and EMBEDDED_REFINER.exists()
