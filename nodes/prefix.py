"""A filename prefix as a user types it, made safe on every system before the host makes a path of it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import PureWindowsPath

from ..joyavatar_core.errors import AvatarError

DEFAULT = "JoyAvatar/talk"
LONGEST = 200  # bytes of a folder's or file's name; file systems take 255, and a counter and an ending follow
SHOWN = 60  # characters of a name in a sentence
DATE = re.compile(r"%date:([^%]+)%")
TOKENS = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")
UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]')
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # on Windows, with any ending


def safe_prefix(prefix: str, now: datetime | None = None) -> str:
    """The prefix with its dates filled in and with names that every system takes; empty becomes the default.

    The host's page fills in %date:...% and %Node.widget% itself; dates are filled in here for graphs in API format.
    Raises AvatarError for a part that is too long and for an absolute path.
    """
    filled = DATE.sub(lambda found: written_date(found[1], now or datetime.now()), prefix)
    if PureWindowsPath(filled).drive or filled.startswith(("/", "\\")):
        raise outside(prefix)
    parts = [safe_name(part) for part in re.split(r"[/\\]+", filled)]
    for part in parts:
        if len(part.encode()) > LONGEST:
            raise AvatarError(
                f"The filename prefix has a part of {len(part)} characters, expected at most {LONGEST} bytes; shorten "
                f"{quoted(part)}."
            )
    return "/".join(filter(None, parts)) or DEFAULT


def outside(prefix: str) -> AvatarError:
    """The error for a prefix that is not within the host's output folder."""
    return AvatarError(
        f"The filename prefix {quoted(prefix)} leads out of the output folder; give a name or a folder below it."
    )


def quoted(text: str) -> str:
    """A user's text in quotes for a sentence, its beginning if it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def safe_name(part: str) -> str:
    """One part of a path; '..' stays, for the host to refuse."""
    if part in (".", ".."):
        return part
    name = UNSAFE.sub("_", part).strip().rstrip(". ")
    return f"_{name}" if RESERVED.fullmatch(name) else name


def written_date(layout: str, now: datetime) -> str:
    """A date as the host's page writes it: yyyy yy MM M dd d hh h mm m ss s."""
    values = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}

    def written(found: re.Match[str]) -> str:
        token = found[0]
        if token[0] == "y":
            return f"{now.year:04}"[-len(token) :]
        return str(values[token[0]]).zfill(len(token))

    return TOKENS.sub(written, layout)
