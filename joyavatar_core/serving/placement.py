"""Where a new session goes: to the worker with the most free GPU memory, or the most free seats on CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """What a worker has left.

    seats: sessions that it may still take. free_bytes: memory of its GPU that no session uses or has been promised,
    None on a CPU. need_bytes: what one session takes of it.
    """

    seats: int
    free_bytes: int | None = None
    need_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether another session can be placed here."""
        return self.seats > 0 and (self.free_bytes is None or self.free_bytes >= self.need_bytes)


def best_first(rooms: Mapping[str, Room]) -> list[str]:
    """The workers that another session fits on: most free GPU memory first, then most free seats."""
    fitting = [name for name, room in rooms.items() if room.fits]
    return sorted(fitting, key=lambda name: (-(rooms[name].free_bytes or 0), -rooms[name].seats, name))
