"""Named combinations of the three mechanisms, and their settings written as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ..config import AvatarConfig
from ..errors import AvatarError
from .mci import MCI_OFF, MciSettings
from .psb import PSB_OFF, PsbSettings
from .urcr import SLIDING_WINDOW, UrcrSettings

PRESETS = ("checkpoint", "joyavatar", "plain", "rolling", "realtime")
REALTIME_STEPS = 4  # most denoising steps of a block


ROLLING = UrcrSettings(sinks=1, recent=2)  # AvatarForcing's: the portrait's frame and the two newest


@dataclass(frozen=True)
class Preset:
    """The settings of PSB, MCI and URCR of one stream."""

    psb: PsbSettings
    mci: MciSettings
    urcr: UrcrSettings


def preset(name: str, config: AvatarConfig) -> Preset:
    """The settings a preset means for a checkpoint.

    `plain` has no mechanism: no extra steps, nothing injected, a sliding window. `joyavatar` has all three.
    `checkpoint` is what the metadata recommends; without metadata it is URCR with the first frames as sinks, which a
    public model needs for long streams. `rolling` is the same for checkpoints that were trained with a rolling window.
    `realtime` is `checkpoint` with the same few steps for every block, the first ones included: at most four, which
    are trained levels. A tiny decoder goes with it where there is one.
    Raises AvatarError for an unknown preset, for `rolling` with any other checkpoint, and for malformed metadata.
    """
    if name not in PRESETS:
        raise AvatarError(f"Preset '{name}' is not known; choose one of {', '.join(PRESETS)}.")
    everything, rolling = all_on(config), config.sampler == "rolling"
    if name == "joyavatar":
        return everything
    if name == "plain":
        return Preset(PSB_OFF, MCI_OFF, replace(everything.urcr, mode="window") if rolling else SLIDING_WINDOW)
    if name == "rolling" and not rolling:
        raise AvatarError(
            "The preset 'rolling' is for checkpoints that were trained with a rolling window (AvatarForcing), and "
            "this one is not known to be; use checkpoint, or load a merged copy of it as the release avatarforcing.",
            "release",
        )
    named = config.preset  # a mechanism that it names is on, even without settings
    first = everything.urcr if rolling else replace(everything.urcr, sink_source="first")
    psb = changed(everything.psb, named["psb"]) if "psb" in named else PSB_OFF
    if name == "realtime":
        most = len(config.levels) if rolling else REALTIME_STEPS
        psb = PsbSettings(first=None, base=min(most, len(config.levels)))
    return Preset(
        psb=psb,
        mci=changed(everything.mci, named["mci"]) if "mci" in named else MCI_OFF,
        urcr=changed(everything.urcr, named["urcr"]) if "urcr" in named else first,
    )


def all_on(config: AvatarConfig) -> Preset:
    """The defaults of all three mechanisms, fitted to a checkpoint's block, trained length and levels."""
    block, trained = config.block_frames, config.trained_positions
    if config.sampler == "rolling":
        return Preset(PsbSettings(), MciSettings(), ROLLING)
    room = min((trained - block) // 2, trained - 2 * block)  # behind one block of sinks, keeping every rotation single
    recent = min(2 * block, room // block * block)
    urcr = SLIDING_WINDOW
    if recent >= 0:
        urcr = UrcrSettings(sinks=block, recent=recent, sink_source="portrait" if config.has_reference else "first")
    injected = min(MciSettings().frames, recent) if recent >= 0 else MciSettings().frames
    return Preset(PsbSettings(first=max(PsbSettings().first, len(config.levels))), MciSettings(frames=injected), urcr)


Settings = TypeVar("Settings", PsbSettings, MciSettings, UrcrSettings)
PLAIN = {PsbSettings: PSB_OFF, MciSettings: MCI_OFF, UrcrSettings: SLIDING_WINDOW}
PLAIN_MODES = {PsbSettings: ("off",), MciSettings: ("off",), UrcrSettings: ("window", "off")}


def parse_settings(text: str, default: Settings, plain: Settings | None = None) -> Settings:
    """Settings from text such as ``first=8,blocks=4``, ``inject,noise=0.1``, ``8,6,4``, ``off`` or ``window``.

    A bare word is the mode, bare numbers are PSB's list. What is not named has the value of `default`, or of `plain`
    where the mode is PSB's and MCI's `off` or URCR's `window`. Raises AvatarError that names what is unknown.
    """
    label = type(default).__name__.removesuffix("Settings").upper()
    values: dict[str, object] = {}
    steps: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (side.strip() for side in part.partition("="))
        if name == "steps" and isinstance(default, PsbSettings):  # "steps=8,6,4"
            name, equals = value, ""
        if not equals:
            if name.isascii() and name.isdigit() and isinstance(default, PsbSettings):
                steps.append(int(name))
                continue
            name, value = "mode", name
        if name in values:
            raise AvatarError(f"{label} {name} is given twice, as '{values[name]}' and '{value}'; give it once.")
        values[name] = value
    if values.get("mode") in PLAIN_MODES[type(default)]:
        default = PLAIN[type(default)] if plain is None else plain
        if isinstance(default, PsbSettings):
            del values["mode"]  # PSB has no such mode: it is off when its first block is like the others
    return changed(default, values | ({"steps": tuple(steps)} if steps else {}))


def changed(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Settings with some values replaced, given as text or as in JSON. Raises AvatarError naming what is unknown."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(settings)}
    label = type(settings).__name__.removesuffix("Settings").upper()
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise AvatarError(f"{label} has no setting '{unknown[0]}'; it has {', '.join(fields)}.")
    return replace(settings, **{name: _value(value, fields[name], label, name) for name, value in values.items()})


def _value(value: object, annotation: str, label: str, name: str) -> object:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str) or annotation == "str":
        return value
    if value.lower() == "none" and "None" in annotation:
        return None
    try:
        if annotation.startswith("tuple"):
            return (int(value),)
        return float(value) if "float" in annotation else int(value)
    except ValueError:
        kind = "number" if "float" in annotation else "whole number"
        raise AvatarError(f"{label} {name} is '{value}', expected a {kind}.") from None
