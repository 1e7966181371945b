"""What voices and motion need to know of a person, drawn or rendered."""

from __future__ import annotations

from typing import Protocol


class Speaker(Protocol):
    """A person who talks."""

    age: str  # "child", "young", "adult" or "elder"
    feminine: bool
    temper: float  # -1 grave .. 1 cheerful
    liveliness: float  # size of head movements
    lean: float  # how the head is usually held, radians of roll
