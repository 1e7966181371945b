"""Where a new session goes: to the worker with the most free GPU memory; on CPUs, with the fewest sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Capacity:
    """What a worker has left.

    sessions: sessions that it may still take. free_bytes: memory of its GPU that no session uses or has been promised,
    None on a CPU. need_bytes: what one session takes of it.
    """

    sessions: int
    free_bytes: int | None = None
    need_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether another session can be placed here."""
        return self.sessions > 0 and (self.free_bytes is None or self.free_bytes >= self.need_bytes)


def best_first(capacities: Mapping[str, Capacity]) -> list[str]:
    """The workers that another session fits on: most free GPU memory first, then most further sessions."""
    fitting = [name for name, capacity in capacities.items() if capacity.fits]
    return sorted(fitting, key=lambda name: (-(capacities[name].free_bytes or 0), -capacities[name].sessions, name))
