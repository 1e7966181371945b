"""Named combinations of the three mechanisms, and their settings written as text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from ..config import AvatarConfig
from ..errors import AvatarError
from .mci import MCI_OFF, MciSettings
from .psb import PSB_OFF, PsbSettings
from .urcr import URCR_OFF, UrcrSettings

PRESETS = ("checkpoint", "joyavatar", "plain")


@dataclass(frozen=True)
class Preset:
    """The settings of PSB, MCI and URCR of one stream."""

    psb: PsbSettings
    mci: MciSettings
    urcr: UrcrSettings


def preset(name: str, config: AvatarConfig) -> Preset:
    """The settings a preset means for a checkpoint.

    `plain` switches everything off, `joyavatar` everything on, `checkpoint` is what its metadata recommends; without
    metadata that is URCR with the first frames as sinks and nothing else, the least that lets a public model go on.
    """
    if name == "plain":
        return Preset(PSB_OFF, MCI_OFF, URCR_OFF)
    if name == "joyavatar":
        source = "portrait" if config.has_reference else "first"
        first = max(PsbSettings().first, len(config.levels))
        return Preset(PsbSettings(first=first), MciSettings(), UrcrSettings(sink_source=source))
    if name != "checkpoint":
        raise AvatarError(f"Preset '{name}' is not known; choose one of {', '.join(PRESETS)}.")
    given = config.preset  # a mechanism it names, even with no setting of its own, is on
    return Preset(
        psb=_build(PsbSettings, given["psb"]) if "psb" in given else PSB_OFF,
        mci=_build(MciSettings, given["mci"]) if "mci" in given else MCI_OFF,
        urcr=_build(UrcrSettings, given["urcr"]) if "urcr" in given else UrcrSettings(sink_source="first"),
    )


Settings = TypeVar("Settings", PsbSettings, MciSettings, UrcrSettings)
OFF = {PsbSettings: PSB_OFF, MciSettings: MCI_OFF, UrcrSettings: URCR_OFF}


def parse_settings(kind: type[Settings], text: str, default: Settings | None = None) -> Settings:
    """Settings from text such as ``first=8,blocks=4``, ``inject,noise=0.1``, ``8,6,4`` (PSB's list) or ``off``.

    A bare word is the mode; what is not named keeps the `default`'s value. Raises AvatarError naming what is unknown.
    """
    text = text.strip()
    if text == "off":
        return OFF[kind]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind is PsbSettings and parts and all(part.isdigit() for part in parts):
        return PsbSettings(steps=tuple(int(part) for part in parts))
    values: dict[str, object] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        values[name.strip() if equals else "mode"] = value.strip() if equals else part
    base = default if default is not None and default != OFF[kind] else kind()
    return _build(kind, {**dataclasses.asdict(base), **values})


def _build(kind: type[Settings], values: dict[str, object]) -> Settings:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    label = kind.__name__.removesuffix("Settings").upper()
    if unknown:
        raise AvatarError(f"{label} has no setting '{unknown[0]}'; it has {', '.join(fields)}.")
    return kind(**{name: _number(value, str(fields[name].type), label, name) for name, value in values.items()})


def _number(value: object, annotation: str, label: str, name: str) -> object:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str) or annotation == "str":
        return value
    if value.lower() == "none" and "None" in annotation:
        return None
    try:
        return float(value) if "float" in annotation else int(value)
    except ValueError:
        raise AvatarError(f"{label} {name} is '{value}', expected a number.") from None
